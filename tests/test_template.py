"""Chat templates of eight families: what they take, what is placed for them, what stays cached."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.hearsay import joined, rendered_prompt
from greenroom.runtime.records import ChatMessage, Tool, ToolCall
from greenroom.runtime.text import Remembered, Text
from tests.manners import FAMILIES, text_of

WEATHER = Tool(
    "weather", "The weather there.", {"type": "object", "properties": {"at": {"type": "string"}}}
)
JULY = "2024-07-26T12:00:00+02:00"

# What is not taken as it comes; everything else is.
LACKS = {
    "deepseek_v2": {"tools", "calls", "results"},
    "gemma2": {"system", "late_system", "consecutive", "tools", "calls", "results"},
    "gemma3": {"late_system", "consecutive", "tools", "calls", "results"},
    "gpt_oss": {"late_system", "many_calls"},
    "llama31": {"many_calls"},
    "mistral": {"late_system", "consecutive", "any_call_id"},
    "qwen3": set[str](),
    "smollm2": {"tools", "calls", "results"},
}
# Shapes of conversations whose prompts are not kept whole by the next one.
DEPARTS = {
    "gpt_oss": {"reasoning and tools"},
    "mistral": {"system", "tools", "reasoning and tools"},
    "qwen3": {"reasoning and tools"},
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def text(default_model_path: Path, family: str) -> Text:
    return text_of(default_model_path, family)


def test_the_probe_finds_out_what_a_template_takes(family: str, text: Text) -> None:
    traits = msgspec.structs.asdict(text.report.traits)
    assert {name for name, has in traits.items() if not has} == LACKS[family]
    assert text.report.is_dated == (family in {"gpt_oss", "llama31"})
    assert {f.shape for f in text.report.findings} == DEPARTS.get(family, set())


def test_the_report_tells_in_words(default_model_path: Path) -> None:
    lines = text_of(default_model_path, "mistral").report.lines()
    assert "it wants users and assistants to alternate: neighbours become one message" in lines
    moved = next(line for line in lines if line.startswith("system: "))
    assert "is kept up to character" in moved
    assert "'Be brief." in moved, "where the prompt departs"
    assert text_of(default_model_path, "qwen3").report.lines()[0].startswith("reasoning and tools:")


def pinned(frame: Frame) -> Frame:
    return msgspec.structs.replace(frame, date=JULY)


@pytest.mark.parametrize(("dated", "printed"), [("llama31", "26 Jul 2024"), ("gpt_oss", "2024-07")])
def test_the_date_is_the_frames(default_model_path: Path, dated: str, printed: str) -> None:
    text = text_of(default_model_path, dated)
    asked = [ChatMessage("user", "Which day is it?")]
    assert printed in text.render(asked, pinned(PLAIN))
    assert printed not in text.render(asked)
    with_tools = Frame((WEATHER,), {"reasoning_effort": "low"}, JULY)
    assert printed in text.render(asked, with_tools)


def test_variables_reach_the_template_and_strange_ones_change_nothing(
    default_model_path: Path,
) -> None:
    asked = [ChatMessage("user", "Think.")]
    qwen = text_of(default_model_path, "qwen3")
    assert qwen.render(asked, Frame(kwargs={"enable_thinking": False})).endswith("</think>\n\n")
    assert not qwen.render(asked).endswith("</think>\n\n")
    oss = text_of(default_model_path, "gpt_oss")
    assert "Reasoning: high" in oss.render(asked, Frame(kwargs={"reasoning_effort": "high"}))
    assert oss.render(asked, Frame(kwargs={"nobody_knows": [1]}, date=JULY)) == oss.render(
        asked, pinned(PLAIN)
    )
    for name in ("messages", "chat_template", "tokenize", "greenroom_dates", "strftime_now"):
        with pytest.raises(InvalidRequest, match=name) as refused:
            oss.render(asked, Frame(kwargs={name: "x"}))
        assert refused.value.param == "chat_template_kwargs"


def test_what_a_template_cannot_do_with_a_variable_is_the_callers_fault(
    default_model_path: Path,
) -> None:
    llama = text_of(default_model_path, "llama31")
    with pytest.raises(InvalidRequest) as refused:
        llama.render([ChatMessage("user", "x")], Frame(kwargs={"date_string": 5}))
    assert refused.value.code == "template_refused"


# Conversations: each message says a word of its own, by which it is found in the prompt.


def calls(n: int, number: int) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(f"call_{n}_{i}_of_many", "weather", f'{{"at": "place{n}x{i}"}}')
        for i in range(number)
    )


words = st.text(alphabet=" \n.,aé漢🙂<", max_size=8)
turns = st.lists(
    st.tuples(
        st.sampled_from(["user", "user", "two users", "tools", "late system"]),
        st.integers(1, 3),  # calls at once
        st.sampled_from([None, "Hm.", "Let me\nsee."]),  # reasoning
        words,
    ),
    min_size=1,
    max_size=4,
)


def conversation(
    system: bool, plot: Sequence[tuple[str, int, str | None, str]]
) -> list[ChatMessage]:
    """Messages in which the assistant always has the last word."""
    told = [ChatMessage("system", "System0 rules.")] if system else []
    for n, (kind, number, thought, more) in enumerate(plot):
        if kind == "late system":
            told.append(ChatMessage("system", f"Late{n}{more}"))
        if kind == "two users":
            told.append(ChatMessage("user", f"First{n}{more}"))
        told.append(ChatMessage("user", f"Ask{n}{more}"))
        if kind == "tools":
            called = calls(n, number)
            told.append(ChatMessage("assistant", "", tool_calls=called, reasoning=thought))
            told.extend(ChatMessage("tool", f"Out{c.id}", tool_call_id=c.id) for c in called)
        told.append(ChatMessage("assistant", f"Say{n}{more}.", reasoning=thought))
    return told


@settings(max_examples=20, deadline=None)
@given(system=st.booleans(), plot=turns, with_tools=st.booleans())
def test_no_conversation_is_refused_and_nothing_that_was_said_is_lost(
    default_model_path: Path, system: bool, plot: list[tuple[str, int, str | None, str]],
    with_tools: bool,
) -> None:  # fmt: skip
    told = conversation(system, plot)
    for name in FAMILIES:
        frame = Frame((WEATHER,) if with_tools else (), {}, JULY)
        rendered = text_of(default_model_path, name).render(told, frame)
        at = 0
        # Mistral prints the system prompt in front of what the user says last, if that is last.
        for message in told[name == "mistral" and told[0].role == "system" :]:
            said = message.content.strip()
            at = rendered.find(said, at)
            assert at >= 0, f"{name} has lost {said!r}"
            for call in message.tool_calls:
                assert call.arguments[8:-2] in rendered
        assert not with_tools or "The weather there." in rendered


def generated(text: Text, before: str, told: list[ChatMessage], frame: Frame) -> str:
    """What a model that does as its template says would have written for the last message."""
    whole = text.render(told, frame, generate=False)
    if whole.startswith(before):
        return whole[len(before) :].rstrip("\n")
    return told[-1].content


def odd(text: Text, said: str) -> tuple[int, ...]:
    """Ids for the same text that no tokenizer would choose, if there are any."""
    ids = tuple(t for c in said for t in text.encode(c))
    return ids if text.decode(ids) == said else text.encode(said)


def common(one: Sequence[int], two: Sequence[int]) -> int:
    pairs = zip(one, two, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))


@settings(max_examples=20, deadline=None)
@given(system=st.booleans(), plot=turns, with_tools=st.booleans(), oddly=st.booleans())
def test_what_is_cached_is_what_a_fresh_render_would_give(
    default_model_path: Path, system: bool, plot: list[tuple[str, int, str | None, str]],
    with_tools: bool, oddly: bool,
) -> None:  # fmt: skip
    """Prompts are those of a fresh render, and lose at most the last turn of what was computed."""
    story = conversation(system, plot)
    frame = Frame((WEATHER,) if with_tools else (), {}, JULY)
    for name in FAMILIES:
        text = text_of(default_model_path, name)
        known: list[Remembered] = []
        asked: list[int] = []  # where the users' turns begin
        for n, message in enumerate(story):
            if message.role != "assistant":
                asked += [n] if message.role == "user" else []
                continue
            told = story[:n]
            rendered = text.render(joined(told), frame)
            prompt = rendered_prompt(text, told, known, frame)
            assert "".join(s.text for s in prompt.spans) == rendered
            assert text.decode(prompt.tokens) == text.decode(text.encode(rendered))
            computed = [t for r in known for t in r.tokens]
            cached = common(prompt.tokens, computed)
            assert rendered.startswith(text.decode(prompt.tokens[:cached]).rstrip("\ufffd"))
            lost_turns_begin = [i for i in asked if story[i - 1].role == "assistant" or not i][
                -2:-1
            ]
            for i in lost_turns_begin:
                word = story[i].content.strip()
                kept = len(text.decode(prompt.tokens[:cached]))
                assert kept + 40 > rendered.index(word), f"{name} has lost more than a turn"
            said = generated(text, rendered, story[: n + 1], frame)
            tokens = odd(text, said) if oddly else text.encode(said)
            known = [*prompt.spans, Remembered(said, tokens)] if said else list(prompt.spans)


@pytest.mark.parametrize("name", ["smollm2", "llama31", "gemma2", "gemma3", "deepseek_v2"])
def test_where_the_template_keeps_prompts_every_token_stays(
    default_model_path: Path, name: str
) -> None:
    """An exact re-send computes only what is new, whatever the ids of the answers were."""
    text = text_of(default_model_path, name)
    story = conversation(
        True, [("user", 1, None, " é"), ("tools", 1, None, ""), ("user", 1, None, "")]
    )
    frame = Frame((WEATHER,), {}, JULY)
    known: list[Remembered] = []
    for n, message in enumerate(story):
        if message.role != "assistant":
            continue
        prompt = rendered_prompt(text, story[:n], known, frame)
        computed = tuple(t for r in known for t in r.tokens)
        assert prompt.tokens[: len(computed)] == computed
        rendered = text.render(joined(story[:n]), frame)
        said = generated(text, rendered, story[: n + 1], frame)
        known = [*prompt.spans, Remembered(said, odd(text, said))]


def test_a_space_that_nobody_saw_is_part_of_what_is_remembered(default_model_path: Path) -> None:
    """DeepSeek's prompt ends with a colon, so that answers begin with a space."""
    text = text_of(default_model_path, "deepseek_v2")
    asked = [ChatMessage("user", "The capital of France?")]
    prompt = rendered_prompt(text, asked, [])
    sampled = (*text.encode(" Par"), *text.encode("is."), *text.stop_tokens)
    keep, kept = text.kept(sampled, "Paris.")
    known = [*prompt.spans, Remembered(kept, sampled[:keep])]
    more = [*asked, ChatMessage("assistant", "Paris."), ChatMessage("user", "Sure?")]
    again = rendered_prompt(text, more, known)
    computed = prompt.tokens + sampled
    assert again.tokens[: len(computed)] == computed
    assert "".join(s.text for s in again.spans) == text.render(more)


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_a_system_prompt_in_the_users_turn_is_shared_all_the_same(
    default_model_path: Path, name: str
) -> None:
    text = text_of(default_model_path, name)
    rules = ChatMessage("system", "You are a terse assistant who knows a lot about cheese.")
    prompts = [rendered_prompt(text, [rules, ChatMessage("user", q)], []) for q in ("Why?", "Who?")]
    ends = {prompt.system_end for prompt in prompts}
    assert len(ends) == 1
    (end,) = ends
    first, second = (prompt.tokens[:end] for prompt in prompts)
    assert first == second
    assert text.decode(first).endswith("cheese.\n")
    for prompt in prompts:
        assert prompt.tokens == text.encode(text.decode(prompt.tokens))
