"""An answer's parts: thoughts, text and calls, however the text is cut up on its way."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.parts import Marks, Parts
from greenroom.runtime.records import Tool
from greenroom.runtime.toolformat import HERMES, Thinking

MARKS = Marks(Thinking("<think>", "</think>"), HERMES)
TOOLS = (Tool("f"), Tool("g"))
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "é", "b": [1,2]}}\n</tool_call>'


def read(text: str, cuts: list[int] | None = None, **more: Any) -> tuple[Parts, dict[str, Any]]:
    """The parts of ``text``, fed in pieces; and what was told of each part, put together."""
    parts = Parts(MARKS, TOOLS, HERMES, **more)
    edges = [0, *sorted(c % (len(text) + 1) for c in cuts or []), len(text)]
    said = [parts.read(text[a:b]) for a, b in pairwise(edges)]
    said.append(parts.end())
    told = {
        "content": "".join(s.content for s in said),
        "reasoning": "".join(s.reasoning for s in said),
        "calls": [(c.index, c.name, c.arguments) for s in said for c in s.calls],
    }
    assert told["content"] == parts.content
    assert told["reasoning"] == parts.reasoning
    assert told["calls"] == [(n, c.name, c.arguments) for n, c in enumerate(parts.calls)]
    return parts, told


ARGUMENTS = '{"a": "é", "b": [1,2]}'
CASES: list[tuple[str, str, str, list[tuple[int, str, str]]]] = [
    ("Hello, world.\n", "Hello, world.\n", "", []),
    ("  a < b  ", "  a < b  ", "", []),
    ("<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm.", []),
    ("<think>\n\n</think>\n\nYes.", "Yes.", "", []),
    (CALL, "", "", [(0, "f", ARGUMENTS)]),
    (f"Let me see.\n{CALL}\n{CALL}", "Let me see.", "",
     [(0, "f", ARGUMENTS), (1, "f", ARGUMENTS)]),
    (f"<think>I call.</think>\n{CALL}\n", "", "I call.", [(0, "f", ARGUMENTS)]),
    ("<think>never ends", "", "never ends", []),
    ("<tool_call>{not json}</tool_call>", "<tool_call>{not json}</tool_call>", "", []),
    ('<tool_call>{"name": "f", "argu', '<tool_call>{"name": "f", "argu', "", []),
    ('<tool_call>{"name": "f", "arguments": 5}</tool_call>',
     '<tool_call>{"name": "f", "arguments": 5}</tool_call>', "", []),
    ("a <tool_cal", "a <tool_cal", "", []),
    ("", "", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "reasoning", "calls"), CASES)
def test_parts_are_told_apart(
    text: str, content: str, reasoning: str, calls: list[tuple[int, str, str]]
) -> None:
    assert read(text)[1] == {"content": content, "reasoning": reasoning, "calls": calls}


@given(st.sampled_from([case[0] for case in CASES]), st.lists(st.integers(0, 200), max_size=12))
def test_it_does_not_matter_how_the_text_is_cut_up(text: str, cuts: list[int]) -> None:
    assert read(text, cuts)[1] == read(text)[1]


def test_a_thought_that_the_prompt_has_begun() -> None:
    assert read("Hm.</think>Yes.", thinking=True)[1] == {
        "content": "Yes.", "reasoning": "Hm.", "calls": [],
    }  # fmt: skip
    assert MARKS.thinking_after("<|im_start|>assistant\n<think>\n") == Thinking(
        "<think>", "</think>", begun=True
    )
    ended = MARKS.thinking_after("<think>\n\n</think>\n\n")
    assert ended is not None
    assert not ended.begun


def test_white_space_next_to_marks_is_the_templates_affair() -> None:
    pattern = MARKS.loosely("\n\nHm.</think>Yes. <tool_call>\n{}</tool_call>")
    assert pattern is not None
    assert pattern.match("Hm.\n</think>\n\nYes.\n<tool_call>\n{}\n</tool_call>\n<|end|>")
    assert not pattern.match("Hm.\n</think>\n\nYes .\n<tool_call>\n{}\n</tool_call>")
    whole = pattern.match("Hm.</think>Yes.<tool_call>{}</tool_call>\n")
    assert whole is not None
    assert whole.group().endswith("</tool_call>")
    assert MARKS.loosely("No marks.") is None


def test_without_tools_a_call_is_just_text() -> None:
    parts = Parts(MARKS)
    assert parts.read(CALL).content + parts.end().content == CALL
    assert parts.calls == ()


def test_a_call_that_cannot_be_read_is_counted() -> None:
    assert read("<tool_call>{</tool_call>")[0].unread == 1
    assert read(CALL)[0].unread == 0


def test_every_call_has_an_id_of_its_own() -> None:
    first, second = read(CALL + CALL)[0].calls
    assert first.id != second.id
    assert first.id.startswith("call_")
