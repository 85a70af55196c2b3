"""Reading chat requests: what is understood, what is refused and how the refusal names it."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.openai import KNOWN, ChatCall, read_chat
from greenroom.runtime.constraint import ForcedCalls, JsonAnswer
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import ChatMessage, Sampling, Tool, ToolCall
from tests.house import question


def read(body: object, header: str | None = None) -> ChatCall:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    headers = {} if header is None else {"x-agent-name": header}
    return read_chat(data, headers=headers, namespace="space")


def refused(body: object, header: str | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as info:
        read(body, header)
    return info.value


def test_a_plain_request() -> None:
    call = read(question())
    assert call.turn.messages == (ChatMessage("user", "The capital of France?"),)
    assert (call.turn.mode, call.turn.agent, call.turn.namespace) == ("chat", None, "space")
    assert (call.turn.max_tokens, call.turn.stop, call.turn.sampling) == (None, (), Sampling())
    assert (call.model, call.stream, call.include_usage) == (None, False, False)


def test_every_option_arrives() -> None:
    call = read(
        question(
            model="org/Smol",
            max_completion_tokens=9,
            stop=["a", "b"],
            temperature=0.5,
            top_p=0.9,
            top_k=40,
            min_p=0.05,
            seed=-3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert call.turn.sampling == Sampling(temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, seed=-3)
    assert (call.turn.max_tokens, call.turn.stop) == (9, ("a", "b"))
    assert (call.model, call.stream, call.include_usage) == ("org/Smol", True, True)


def test_roles_and_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "bob"},
        {"role": "assistant", "content": "ok", "refusal": None, "tool_calls": None},
    ]
    assert read({"messages": messages}).turn.messages == (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "ab", "bob"),
        ChatMessage("assistant", "ok"),
    )


def test_calls_of_tools_and_their_answers() -> None:
    function = {"name": "weather", "arguments": '{"at": "Oslo"}'}
    messages = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "reasoning_content": "I look.",
         "tool_calls": [{"id": "c1", "type": "function", "function": function},
                        {"id": "c2", "function": {"name": "time", "arguments": {"at": 1}}}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "yes"}]},
        {"role": "tool", "tool_call_id": "c2", "name": "time", "content": ""},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": None, "refusal": "No."},
    ]  # fmt: skip
    calls = (ToolCall("c1", "weather", '{"at": "Oslo"}'), ToolCall("c2", "time", '{"at":1}'))
    assert read({"messages": messages}).turn.messages == (
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Rain?"),
        ChatMessage("assistant", "", tool_calls=calls, reasoning="I look."),
        ChatMessage("tool", "yes", tool_call_id="c1"),
        ChatMessage("tool", "", "time", tool_call_id="c2"),
        ChatMessage("assistant", "No."),
        ChatMessage("assistant", "No."),
    )


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", ""])
def test_what_is_no_text_is_refused_in_words(kind: str) -> None:
    said = [{"type": "text", "text": "Look:"}, {"type": kind, kind: {"url": "data:,"}}]
    error = refused({"messages": [{"role": "user", "content": said}]})
    assert (error.param, error.code) == ("messages[0].content[1].type", "unsupported_value")
    assert "images, audio and files cannot be read" in str(error)


def test_who_is_speaking() -> None:
    assert read(question(agent="bob", model="carol@smol"), "alice").turn.agent == "alice"
    by_field = read(question(agent="bob", model="carol@smol"))
    assert (by_field.turn.agent, by_field.model) == ("bob", "smol")
    by_model = read(question(model="carol@home@org/Smol"))
    assert (by_model.turn.agent, by_model.model) == ("carol@home", "org/Smol")
    assert read(question(model="carol@")).model is None


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [{}]}]},
         "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
         "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
         "messages[0].tool_calls[0].id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
         "messages[0].tool_calls[0].function.name"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}]},
         "messages[0].tool_calls[0].type"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"model": 5}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": -1}, "min_p"),
        ({"top_k": -2}, "top_k"),
        ({"seed": 1 << 63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": "a" * 1025}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"agent": "a/b"}, "agent"),
        ({"agent": ""}, "agent"),
        ({"model": "@smol"}, "model"),
        ({"max_token": 5}, "max_token"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "maybe", "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]},
         "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(more: dict[str, object], param: str) -> None:
    assert refused(question(**more)).param == param


@pytest.mark.parametrize(
    ("param", "value", "neutral"),
    [
        ("functions", [{}], []),
        ("function_call", {"name": "f"}, "auto"),
        ("audio", {}, None),
        ("modalities", ["audio"], ["text"]),
        ("prediction", {}, None),
        ("verbosity", "low", "medium"),
        ("web_search_options", {}, None),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(
    param: str, value: object, neutral: object
) -> None:
    error = refused(question(**{param: value}))
    assert (error.param, error.code) == (param, "unsupported_parameter")
    assert read(question(**{param: neutral})) == read(question())


def test_tools_and_which_must_be_called() -> None:
    tools = {"tools": [TOOL]}
    named = {"type": "function", "function": {"name": "f"}}
    turn = read(question(**tools)).turn
    assert (turn.tools, turn.may_call, turn.constraint) == (
        (Tool("f", None, {"type": "object"}),),
        True,
        None,
    )
    assert not read(question(**tools, tool_choice="none")).turn.may_call
    assert read(question(**tools, tool_choice="required")).turn.constraint == ForcedCalls(many=True)
    alone = read(question(**tools, tool_choice="required", parallel_tool_calls=False)).turn
    assert alone.constraint == ForcedCalls()
    assert read(question(**tools, tool_choice=named)).turn.constraint == ForcedCalls("f")
    both = question(**tools, tool_choice=named, response_format={"type": "json_object"})
    assert read(both).turn.constraint == ForcedCalls("f")


def test_the_form_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    asked = read(question(response_format=form)).turn.constraint
    assert asked == JsonAnswer(schema, "response_format.json_schema.schema")
    json_object = read(question(response_format={"type": "json_object"})).turn
    assert json_object.constraint == JsonAnswer({"type": "object"})
    assert read(question(response_format={"type": "text"})) == read(question())


def test_logprobs_penalties_and_biases() -> None:
    drawn = read(
        question(
            logprobs=True, top_logprobs=2, presence_penalty=1, frequency_penalty=-1,
            repetition_penalty=1.2, logit_bias={"5": -100, "3": 1.5},
        )
    ).turn.sampling  # fmt: skip
    assert drawn == Sampling(
        top_logprobs=2, presence_penalty=1.0, frequency_penalty=-1.0, repetition_penalty=1.2,
        logit_bias=((3, 1.5), (5, -100.0)),
    )  # fmt: skip
    assert read(question(logprobs=True)).turn.sampling.top_logprobs == 0
    assert read(question(logprobs=False)).turn.sampling.top_logprobs is None


def test_an_effort_is_told_to_the_template() -> None:
    def told(**more: object) -> object:
        return read(question(**more)).turn.template_kwargs

    assert told(reasoning_effort="high") == {"reasoning_effort": "high", "enable_thinking": True}
    assert told(reasoning_effort="none") == {"reasoning_effort": "none", "enable_thinking": False}
    own = {"enable_thinking": True, "x": [1]}
    assert told(reasoning_effort="none", chat_template_kwargs=own) == {
        "reasoning_effort": "none", **own,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "priority"),
    [
        ({}, "normal"),
        ({"service_tier": "auto"}, "normal"),
        ({"service_tier": "priority"}, "high"),
        ({"service_tier": "flex"}, "low"),
        ({"priority": "low", "service_tier": "priority"}, "low"),
    ],
)
def test_a_priority_is_asked_for_by_name_or_by_tier(fields: dict[str, str], priority: str) -> None:
    assert read(question(**fields)).turn.priority == priority


def test_harmless_parameters_and_nulls_change_nothing() -> None:
    harmless = {"user": "u", "metadata": {"a": "b"}, "store": True}
    nothing = dict.fromkeys(KNOWN - {"messages"})
    assert read(question(**harmless)) == read(question(**nothing)) == read(question())


def test_a_misspelt_parameter_is_told_its_neighbour() -> None:
    assert "max_tokens" in str(refused(question(max_token=5)))


def test_an_illegal_name_names_the_header() -> None:
    assert refused(question(), "../etc").param == "X-Agent-Name"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"hello"',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"temperature": 1e999, "messages": []}',
    ],
)
def test_a_body_that_is_not_a_request(body: bytes) -> None:
    refused(body)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("aé1", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), json_values, max_size=5))
def test_any_json_is_read_or_refused(body: dict[str, Any]) -> None:
    """Whatever the fields hold, the answer is a request or an ``InvalidRequest``."""
    with suppress(InvalidRequest):
        assert read({"messages": [{"role": "user", "content": "x"}], **body}).turn.messages


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    refused(body)
