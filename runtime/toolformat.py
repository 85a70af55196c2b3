"""How models mark thoughts and calls of tools in what they write, and how calls are read back."""

import importlib
import json
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.records import Tool, ToolCall

Parse = Callable[[str, Any], Any]
"""mlx-lm's parsers: the text between the marks, and the tools, to one call or several."""


class Thinking(msgspec.Struct, frozen=True):
    """How a model marks what it thinks before it answers; ``begun`` if the prompt opens it."""

    start: str
    end: str
    begun: bool = False


class ToolFormat(msgspec.Struct, frozen=True):
    """One way of writing calls.

    Calls are read between ``start`` and ``end`` (until the answer's end if that is empty). Where a
    grammar writes them, ``between`` stands between two, and each is its arguments between ``head``,
    in which NAME is the tool's name, and ``tail``. ``opening`` is a pattern of what comes before
    arguments in JSON, with the group ``name``; None where they are written otherwise.
    """

    name: str
    start: str
    end: str
    parse: Parse
    head: str = ""
    tail: str = ""
    between: str = ""
    opening: str | None = None

    def around(self, tool: str) -> tuple[str, str]:
        """What stands before and after the arguments of a call of ``tool``."""
        return self.head.replace("NAME", tool), self.tail

    def calls(self, text: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
        """The calls in the text between the marks. Raises ValueError where there are none.

        The model's own spelling of the arguments is kept where it is JSON.
        """
        try:
            parsed = self.parse(text, [as_openai(t) for t in tools])
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            SyntaxError,
            RecursionError,
        ) as error:
            raise ValueError(f"not a call: {error}") from error
        every = parsed if isinstance(parsed, list) else [parsed]
        return tuple(_call(each, text) for each in every)


def _call(parsed: Any, text: str) -> ToolCall:
    if not isinstance(parsed, dict) or not isinstance(parsed.get("name"), str):
        raise ValueError("not a call: it has no name")
    arguments = parsed.get("arguments", parsed.get("parameters"))
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError("not a call: its arguments are no object")
    given = parsed.get("id")
    return ToolCall(
        id=given if isinstance(given, str) and given else new_call_id(),
        name=parsed["name"],
        arguments=_as_written(arguments, text) or json.dumps(arguments, ensure_ascii=False),
    )


def _as_written(arguments: dict[str, Any], text: str) -> str | None:
    """The part of ``text`` that means just these arguments."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            value, end = None, at
        if value == arguments:
            return text[at:end]
        at = text.find("{", at + 1)
    return None


def new_call_id() -> str:
    """An id as OpenAI's look."""
    return f"call_{secrets.token_hex(12)}"


def as_openai(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI describes it."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description or "",
            "parameters": dict(tool.parameters),
        },
    }


def _parser(name: str) -> Parse:
    parse: Parse = importlib.import_module(f"mlx_lm.tool_parsers.{name}").parse_tool_call
    return parse


# Which of mlx-lm's formats have arguments in JSON. What follows is an object: the model may err.
_OBJECT = r"(?=\{\s*[\"}])"
_OPENINGS = {
    "json_tools": r'\s*\{\s*"name"\s*:\s*"(?P<name>[^"\\]+)"\s*,'
    rf'\s*"(?:arguments|parameters)"\s*:\s*{_OBJECT}',
    "mistral": rf"\s*(?:\[TOOL_CALLS\])?\s*(?P<name>[\w-]+)\s*\[ARGS\]\s*{_OBJECT}",
}

HERMES = ToolFormat(
    name="json_tools",
    start="<tool_call>",
    end="</tool_call>",
    parse=_parser("json_tools"),
    head='<tool_call>\n{"name": "NAME", "arguments": ',
    tail="}\n</tool_call>",
    between="\n",
    opening=_OPENINGS["json_tools"],
)
"""What most models know, and what serves those that know none or whose calls are not JSON."""

# More formats whose arguments are JSON, so that a grammar can hold them.
_FORCED = {
    "mistral": ToolFormat(
        name="mistral",
        start="[TOOL_CALLS]",
        end="",
        parse=_parser("mistral"),
        head="[TOOL_CALLS]NAME[ARGS]",
        opening=_OPENINGS["mistral"],
    ),
}


def native_format(tokenizer: TokenizerWrapper) -> ToolFormat | None:
    """How this model writes calls by itself; None if it does not know how."""
    if not tokenizer.has_tool_calling:
        return None
    parse = tokenizer.tool_parser
    name = str(parse.__module__).rpartition(".")[2]
    start, end = str(tokenizer.tool_call_start), str(tokenizer.tool_call_end)
    return ToolFormat(name, start, end, parse, opening=_OPENINGS.get(name))


def forced_format(native: ToolFormat | None) -> ToolFormat:
    """How a call is written that a grammar forces: natively where that is JSON."""
    return HERMES if native is None else _FORCED.get(native.name, HERMES)
