"""An answer's parts: thoughts, text and calls, however the text is cut up on its way."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.parts import Marks, Parts, Said
from greenroom.runtime.records import Tool
from greenroom.runtime.toolformat import HERMES, Thinking, ToolFormat, forced_format

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
        "calls": accumulated(said),
    }
    assert told["content"] == parts.content
    assert told["reasoning"] == parts.reasoning
    assert told["calls"] == [(n, c.name, c.arguments) for n, c in enumerate(parts.calls)]
    return parts, told


def accumulated(said: list[Said]) -> list[tuple[int, str, str]]:
    """Calls put together from their pieces, as clients do."""
    calls: list[tuple[int, str, str]] = []
    for each in said:
        numbers = [piece.index for piece in each.calls]
        assert len(set(numbers)) == len(numbers)
        for piece in each.calls:
            assert (piece.id is None) is (piece.name is None)
            if piece.name is not None:
                calls.append((piece.index, piece.name, ""))
            number, name, arguments = calls[-1]
            assert number == piece.index
            calls[-1] = (number, name, arguments + piece.arguments)
    return calls


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
    ('<tool_call>{"name": "f", "arguments": {"a": "}\\"</tool_call>', "", "",
     [(0, "f", '{"a": "}\\"')]),
    ('<tool_call>{"name": "f", "arguments": {}}', "", "", [(0, "f", "{}")]),
    ('<tool_call>{"name":"f","parameters":{"a":[{}]} , "id": 1}</tool_call>.', ".", "",
     [(0, "f", '{"a":[{}]}')]),
    ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", "",
     [(0, "f", '{"a": 1}')]),
    ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", "",
     [(0, "f", '{"a": 1}')]),
    ('<tool_call>{"name": "f", "arguments": {a: 1}}</tool_call>',
     '<tool_call>{"name": "f", "arguments": {a: 1}}</tool_call>', "", []),
    ("a <tool_cal", "a <tool_cal", "", []),
    ("a <tool_call>", "a<tool_call>", "", []),
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


def test_arguments_are_told_as_they_come() -> None:
    text = CALL + CALL.replace('"f"', '"g"')
    parts = Parts(MARKS, TOOLS, HERMES)
    told = [parts.read(character).calls for character in text]
    pieces = [piece for calls in told for piece in calls]
    assert [p.name for p in pieces if p.name] == ["f", "g"]
    assert max(len(p.arguments) for p in pieces) == 2  # a brace, and what shows it is an object's
    # The name is told once it is sure that arguments follow, and every character at once.
    assert all(told[n] for n in range(text.index('"a"'), text.index("}}") + 1))


@pytest.mark.parametrize(
    ("arguments", "broken"), [('{"a": 1}', 0), ('{"a": 1', 1), ('{"a": }', 1), ('{"a": "', 1)]
)
def test_arguments_that_are_no_json_are_counted(arguments: str, broken: int) -> None:
    parts, told = read(f'<tool_call>{{"name": "f", "arguments": {arguments}')
    assert told["calls"] == [(0, "f", arguments)]
    assert (parts.broken, parts.unread) == (broken, 0)


def test_calls_without_an_end_mark_follow_each_other() -> None:
    form = forced_format(ToolFormat("mistral", "[TOOL_CALLS]", "", HERMES.parse))
    parts = Parts(Marks(None, form), TOOLS, form)
    text = '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}'
    said = [parts.read(character) for character in text]
    assert accumulated([*said, parts.end()]) == [(0, "f", '{"a": 1}'), (1, "g", "{}")]
    assert [(c.name, c.arguments) for c in parts.calls] == [("f", '{"a": 1}'), ("g", "{}")]


def test_every_call_has_an_id_of_its_own() -> None:
    first, second = read(CALL + CALL)[0].calls
    assert first.id != second.id
    assert first.id.startswith("call_")
