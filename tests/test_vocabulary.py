"""Grammars over a real tokenizer: what is let through, what is refused, and with which words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer
from mlx_lm.tool_parsers import mistral
from transformers import AutoTokenizer

from greenroom.runtime.constraint import Constraint, ForcedCalls, JsonAnswer
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.parts import Parts, read_marks
from greenroom.runtime.records import Tool
from greenroom.runtime.toolformat import HERMES, Thinking, ToolFormat, forced_format
from greenroom.runtime.vocabulary import Vocabulary

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LINKED = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/n"}},
    "$defs": {"n": {"type": "integer"}},
}
TOOLS = (Tool("weather", None, CITY), Tool("link", None, LINKED), Tool("any"))


class Judge:
    """Whether a matcher takes a text, token by token, and would let it end there."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self.tokenizer: Any = tokenizer
        self.vocabulary = Vocabulary(tokenizer)

    def takes(
        self,
        constraint: Constraint,
        text: str,
        *,
        calls: ToolFormat = HERMES,
        thinking: Thinking | None = None,
        tools: Sequence[Tool] = TOOLS,
    ) -> bool:
        matcher = self.vocabulary.matcher(constraint, tools, calls, thinking)
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.fixture(scope="module")
def judge(default_model_path: Path) -> Judge:
    return Judge(load_tokenizer(default_model_path))


def with_tokens(path: Path, tokens: list[str], *, special: bool, **more: Any) -> TokenizerWrapper:
    """The default tokenizer with more tokens, as another model's would have them."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(tokens, special_tokens=special)
    return TokenizerWrapper(tokenizer, **more)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('{"city": "Paris"}', True),
        ('{"city": "é 🎭 \\"x\\""}', True),
        ('{"city":"Paris"}', False),
        ('{\n "city": "Paris"}', False),
        ('{"city": 5}', False),
        ("{}", False),
        ('{"city": "Paris"', False),
        ('{"city": "Paris", "more": [1, {"a": null}]}', True),
    ],
)
def test_a_schema_in_a_fixed_layout(judge: Judge, text: str, taken: bool) -> None:
    assert judge.takes(JsonAnswer(CITY), text) is taken


def test_any_object(judge: Judge) -> None:
    assert judge.takes(JsonAnswer({"type": "object"}), '{"a": [1, "b", {"c": true}]}')
    assert not judge.takes(JsonAnswer({"type": "object"}), "[1]")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "strin"}, "strin"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "https://example.com/schema"}, "example.com"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=a)"}, "regex"),
        ({"enum": []}, "empty"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no answer is valid"),
    ],
)
def test_what_cannot_be_enforced_is_said(judge: Judge, schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        judge.takes(JsonAnswer(schema, "response_format.json_schema.schema"), "{}")
    assert refused.value.param == "response_format.json_schema.schema"
    assert reason in str(refused.value)
    with pytest.raises(InvalidRequest) as refused:
        judge.takes(ForcedCalls(), "{}", tools=[Tool("f", None, schema)])
    assert refused.value.param == "tools"


def test_a_schema_without_a_bottom_is_refused(judge: Judge) -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        judge.takes(JsonAnswer(schema), "{}")


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


ONE = call("weather", '{"city": "Oslo"}')


@pytest.mark.parametrize(
    ("forced", "text", "taken"),
    [
        (ForcedCalls(), ONE, True),
        (ForcedCalls(), call("link", '{"a": 5}'), True),
        (ForcedCalls(), call("link", '{"a": "x"}'), False),
        (ForcedCalls(), call("any", '{"z": [1]}'), True),
        (ForcedCalls(), call("other", "{}"), False),
        (ForcedCalls(), f"{ONE}\n{ONE}", False),
        (ForcedCalls(many=True), "\n".join([ONE] * 4), True),
        (ForcedCalls(many=True), "\n".join([ONE] * 5), False),
        (ForcedCalls("weather"), ONE, True),
        (ForcedCalls("any"), ONE, False),
        (ForcedCalls(), "I would rather talk.", False),
    ],
)
def test_forced_calls(judge: Judge, forced: ForcedCalls, text: str, taken: bool) -> None:
    assert judge.takes(forced, text) is taken
    if taken:
        parts = Parts(read_marks(judge.tokenizer), TOOLS, HERMES)
        parts.read(text)
        assert not parts.end().content
        assert all(isinstance(json.loads(c.arguments), dict) for c in parts.calls)
        assert len(parts.calls) == text.count("<tool_call>")


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_thoughts_come_first_and_are_free(
    default_model_path: Path, special: bool, begun: bool
) -> None:
    tokenizer = with_tokens(default_model_path, ["<think>", "</think>"], special=special)
    marks = read_marks(tokenizer)
    thinking = marks.thinking_after("<think>\n" if begun else "assistant\n")
    assert thinking == Thinking("<think>", "</think>", begun)
    judge = Judge(tokenizer)
    start = "" if begun else "<think>"
    asked = JsonAnswer(CITY)
    text = start + 'Hm: <b> {"city": 5}\n</think>\n\n{"city": "Oslo"}'
    assert judge.takes(asked, text, thinking=thinking)
    assert judge.takes(asked, '{"city": "Oslo"}', thinking=thinking) is not begun
    assert not judge.takes(asked, start + "Hm.</think>\n\nOslo", thinking=thinking)


def test_a_models_own_marks_are_named_where_they_are_no_text(default_model_path: Path) -> None:
    tokenizer = with_tokens(
        default_model_path,
        ["[TOOL_CALLS]", "[ARGS]"],
        special=True,
        tool_call_start=mistral.tool_call_start,
        tool_call_end=mistral.tool_call_end,
        tool_parser=mistral.parse_tool_call,
    )
    native = read_marks(tokenizer).native
    own = forced_format(native)
    text = '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}'
    judge = Judge(tokenizer)
    assert judge.takes(ForcedCalls(), text, calls=own)
    assert judge.takes(ForcedCalls(many=True), text * 2, calls=own)
    assert not judge.takes(ForcedCalls(), ONE, calls=own)
    parts = Parts(read_marks(tokenizer), TOOLS, native)
    parts.read(text * 2)
    parts.end()
    assert [(c.name, c.arguments) for c in parts.calls] == [("weather", '{"city": "Oslo"}')] * 2


def test_a_model_that_writes_no_json_is_made_to(default_model_path: Path) -> None:
    assert forced_format(None) is HERMES
    assert forced_format(msgspec.structs.replace(HERMES, name="qwen3_coder")) is HERMES


def test_tokens_as_bytes(judge: Judge) -> None:
    tokens = judge.tokenizer.encode("Zoë 🎭", add_special_tokens=False)
    assert b"".join(judge.vocabulary.utf8(t) for t in tokens) == "Zoë 🎭".encode()
