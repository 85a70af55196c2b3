"""Unmodified clients against a live server with the default model, which knows no tools itself."""

import asyncio
import functools
import json
import math
import operator
import subprocess
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from jsonschema import validate
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr
from websockets import Origin, Subprotocol
from websockets.asyncio.client import connect

from tests.server import Server

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}
QUESTION = "What is the weather in Paris?"


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, content: str = QUESTION, **more: Any) -> Any:
    """One question, and the answer as it comes."""
    messages = more.pop("messages", [{"role": "user", "content": content}])
    options = {"model": "default", "temperature": 0, "max_tokens": 60, **more}
    return client.chat.completions.create(messages=messages, **options)


def check_call(call: Any, tool: Any = WEATHER) -> dict[str, Any]:
    """The arguments, once the call has been found to be as the tool says."""
    assert call.type == "function"
    assert call.function.name == tool["function"]["name"]
    arguments: dict[str, Any] = json.loads(call.function.arguments)
    validate(arguments, tool["function"]["parameters"])
    return arguments


def test_a_plain_chat_and_its_stream_say_the_same(client: openai.OpenAI) -> None:
    ask(client, max_tokens=1)  # from here on both go on from the same memory of the prompt
    whole = ask(client, max_tokens=12)
    chunks = list(ask(client, max_tokens=12, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert whole.choices[0].finish_reason == chunks[-2].choices[0].finish_reason == "length"
    assert whole.system_fingerprint.startswith("fp_")


@pytest.mark.slow
def test_a_named_tool_is_called(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    reply = ask(client, tools=[CLOCK, WEATHER], tool_choice=named)
    [choice] = reply.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    check_call(call)


@pytest.mark.slow
def test_a_required_tool_is_called_and_its_answer_goes_on_from_memory(
    client: openai.OpenAI,
) -> None:
    tools: dict[str, Any] = {"tools": [WEATHER], "extra_headers": {"X-Agent-Name": "forecaster"}}
    asked: list[Any] = [{"role": "user", "content": QUESTION}]
    first = ask(client, messages=asked, tool_choice="required", parallel_tool_calls=False, **tools)
    message = first.choices[0].message
    check_call(message.tool_calls[0])
    told = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny, 21 C"}
    history = [*asked, message.model_dump(exclude_none=True), told]
    second = ask(client, messages=history, **tools)
    assert second.choices[0].message.content
    # All of the first turn is remembered, the call as it was sampled; only its end may be new.
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.total_tokens - 1


@pytest.mark.slow
def test_streamed_calls(client: openai.OpenAI) -> None:
    calls: dict[int, list[str]] = {}
    reasons = []
    for chunk in ask(client, tools=[WEATHER], tool_choice="required", max_tokens=250, stream=True):
        reasons.append(chunk.choices[0].finish_reason)
        assert not chunk.choices[0].delta.content
        for delta in chunk.choices[0].delta.tool_calls or ():
            if delta.id is not None:
                assert (delta.type, delta.function.name) == ("function", "get_weather")
                calls[delta.index] = []
            calls[delta.index].append(delta.function.arguments or "")
    assert reasons[-1] == "tool_calls"
    assert 1 <= len(calls) <= 4
    for pieces in calls.values():
        validate(json.loads("".join(pieces)), WEATHER["function"]["parameters"])


def shown(*cities: str) -> list[Any]:
    """A conversation in which the tool has been called for each of the cities but the last."""
    history: list[Any] = []
    for n, city in enumerate(cities):
        history.append({"role": "user", "content": f"What is the weather in {city}?"})
        if n + 1 < len(cities):
            arguments = json.dumps({"city": city, "unit": "C"})
            function = {"name": "get_weather", "arguments": arguments}
            calls = [{"id": f"call_{n}", "type": "function", "function": function}]
            history += [
                {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "tool_call_id": f"call_{n}", "content": "Sunny, 21 C"},
                {"role": "assistant", "content": f"It is sunny in {city}, at 21 C."},
            ]
    return history


STRICT: Any = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["auto", "required", NAMED], ids=["auto", "required", "named"])
def test_a_call_comes_in_pieces_that_make_the_whole(client: openai.OpenAI, choice: Any) -> None:
    """With "auto" it is the model's own idea, from what it was shown."""
    options: dict[str, Any] = {
        "model": "default",
        "messages": shown("Rome", "Oslo", "Madrid", "Vienna", "Paris"),
        "temperature": 0,
        "tools": [STRICT],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "extra_headers": {"X-Agent-Name": "shown"},
    }
    client.chat.completions.create(**options, max_tokens=1)  # from here on memory is the same
    [whole] = client.chat.completions.create(**options, max_tokens=80).choices
    assert whole.finish_reason == "tool_calls"
    assert not whole.message.content
    assert whole.message.tool_calls is not None
    call: Any = whole.message.tool_calls[0]
    assert len(whole.message.tool_calls) == 1
    assert check_call(call)["city"] == "Paris"
    with client.chat.completions.stream(**options, max_tokens=80) as stream:
        kinds = [event.type for event in stream]
        [streamed] = stream.get_final_completion().choices
    assert kinds.count("tool_calls.function.arguments.delta") > 3
    assert streamed.finish_reason == "tool_calls"
    told: list[Any] = streamed.message.tool_calls or []
    same = [(c.function.name, c.function.arguments) for c in told]
    assert same == [(call.function.name, call.function.arguments)]


@pytest.mark.slow
def test_a_call_that_is_cut_short_is_told_as_far_as_it_goes(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "tool_choice": NAMED, "max_tokens": 24}
    whole = ask(client, **options)
    assert whole.choices[0].finish_reason == "length"
    [call] = whole.choices[0].message.tool_calls
    assert call.function.arguments.startswith("{")
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.function.arguments)
    assert [n.partition(":")[0] for n in whole.greenroom["notices"]][-1] == "tool_call_broken"
    pieces = [c.choices[0].delta.tool_calls or () for c in ask(client, **options, stream=True)]
    told = "".join(piece.function.arguments or "" for each in pieces for piece in each)
    assert told == call.function.arguments


def test_what_the_model_cannot_do_is_said(client: openai.OpenAI) -> None:
    reply = ask(
        client,
        tools=[WEATHER],
        reasoning_effort="high",
        response_format={"type": "json_object"},
        max_tokens=1,
    )
    codes = [notice.split(":")[0] for notice in reply.greenroom["notices"]]
    assert codes == ["tools_in_words", "tools_not_called", "no_reasoning"]
    assert ask(client, max_tokens=1).greenroom["notices"] == []


def test_tools_may_be_left_alone(client: openai.OpenAI) -> None:
    for choice in ("auto", "none"):
        reply = ask(client, "Say hello.", tools=[WEATHER], tool_choice=choice, max_tokens=8)
        assert reply.choices[0].finish_reason in ("length", "stop", "tool_calls")
        assert choice == "auto" or reply.choices[0].message.tool_calls is None


class Person(BaseModel):
    """Whom the text is about."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", "sad"]


def test_an_answer_is_parsed_into_a_model(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(
        model="default",
        messages=[{"role": "user", "content": "Tom is 30 years old and happy. Who is it?"}],
        temperature=0,
        max_tokens=100,
        response_format=Person,
    )
    assert reply.choices[0].finish_reason == "stop"
    assert isinstance(reply.choices[0].message.parsed, Person)


def test_a_json_object(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, response_format=form)
    assert refused.value.param == "response_format.json_schema.schema"
    content = ask(
        client, "Give me JSON with a name.", response_format={"type": "json_object"}
    ).choices[0]
    assert content.message.content.startswith("{")
    if content.finish_reason == "stop":
        assert isinstance(json.loads(content.message.content), dict)


def test_logprobs(client: openai.OpenAI) -> None:
    choice = ask(client, max_tokens=6, logprobs=True, top_logprobs=3).choices[0]
    told = choice.logprobs.content
    assert "".join(t.token for t in told).strip() == choice.message.content.strip()
    for each in told:
        assert bytes(each.bytes).decode() == each.token
        assert len(each.top_logprobs) == 3
        assert each.top_logprobs[0].token == each.token  # greedy
        assert each.top_logprobs[0].logprob == pytest.approx(each.logprob)
        assert sum(math.exp(t.logprob) for t in each.top_logprobs) <= 1.0001
    chunks = list(ask(client, max_tokens=6, logprobs=True, top_logprobs=3, stream=True))
    streamed = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in told]
    assert ask(client, max_tokens=2).choices[0].logprobs is None


@pytest.mark.slow
def test_several_answers_to_one_prompt(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"n": 4, "temperature": 1.0, "seed": 5, "max_tokens": 8}
    ask(client, max_tokens=1)
    reply = ask(client, **options)
    texts = [c.message.content for c in reply.choices]
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    assert len(set(texts)) > 1
    assert reply.usage.completion_tokens <= 32
    alone = ask(client, **{**options, "n": 1})
    assert alone.choices[0].message.content == texts[0]
    streamed = [""] * 4
    for chunk in ask(client, **options, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def chat_model(server: Server, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="default",
        base_url=f"{server.url}/v1",
        api_key=SecretStr("none"),
        temperature=0,
        max_retries=0,
        max_completion_tokens=60,
        **more,
    )


def test_langchain_invokes_and_streams(server: Server) -> None:
    model = chat_model(server, stop=[","])
    model.invoke(QUESTION)
    whole = model.invoke(QUESTION)
    assert whole.content
    assert whole.response_metadata["finish_reason"] in ("stop", "length")
    assert "".join(str(chunk.content) for chunk in model.stream(QUESTION)) == whole.content


@pytest.mark.slow
def test_langchain_binds_tools(server: Server) -> None:
    bound = chat_model(server).bind_tools([WEATHER], tool_choice="get_weather")
    reply = bound.invoke([HumanMessage(QUESTION)])
    [call] = reply.tool_calls
    assert call["name"] == "get_weather"
    validate(call["args"], WEATHER["function"]["parameters"])
    told = ToolMessage("Sunny", tool_call_id=str(call["id"]))
    after = chat_model(server).bind_tools([WEATHER]).invoke([HumanMessage(QUESTION), reply, told])
    assert after.content or after.tool_calls


@pytest.mark.slow
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gives_structured_output(
    server: Server, method: Literal["json_schema", "function_calling"]
) -> None:
    structured = chat_model(server).with_structured_output(Person, method=method)
    assert isinstance(structured.invoke("Tom is 30 and happy."), Person)


@pytest.mark.slow
def test_langchain_streams_calls(server: Server) -> None:
    bound = chat_model(server).bind_tools([WEATHER], tool_choice="get_weather")
    whole = bound.invoke([HumanMessage(QUESTION)])
    chunks: list[Any] = list(bound.stream([HumanMessage(QUESTION)]))
    streamed = functools.reduce(operator.add, chunks)
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [
        (c["name"], c["args"]) for c in whole.tool_calls
    ]


def test_a_websocket_client_as_strict_as_browsers(server: Server) -> None:
    """It offers compression and an origin, sends frames in pieces, and answers pings."""

    async def scenario() -> None:
        async with connect(
            server.url.replace("http", "ws") + "/v1/agents/strict/stream",
            origin=Origin("http://localhost:3000"),
            subprotocols=[Subprotocol("greenroom.v1")],
        ) as socket:
            assert socket.subprotocol == "greenroom.v1"
            await (await socket.ping())
            say = json.dumps({"type": "say", "id": "1", "content": QUESTION, "max_tokens": 8})
            await socket.send([say[:20], say[20:40], say[40:]])
            frames = [json.loads(await socket.recv())]
            while frames[-1]["type"] not in ("done", "error"):
                frames.append(json.loads(await socket.recv()))
        assert [frame["seq"] for frame in frames] == list(range(len(frames)))
        assert "".join(f["text"] for f in frames if f["type"] == "token") == frames[-1]["text"]

    asyncio.run(scenario())


def test_curl(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True}
    out = subprocess.run(
        ["curl", "-sN", f"{server.url}/v1/chat/completions", "-d", json.dumps(body)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    events = [line.removeprefix("data: ") for line in out.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[0])["choices"][0]["delta"]["role"] == "assistant"
