"""Grammars in llguidance's dialect of Lark, made from what an answer must be. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from greenroom.runtime.bounds import bounded
from greenroom.runtime.constraint import Constraint, ForcedCalls, JsonAnswer
from greenroom.runtime.records import Tool
from greenroom.runtime.toolformat import Thinking, ToolFormat

MAX_FORCED_CALLS = 4
"""A small model that must call tools and may call several would go on for ever."""

# What templates put after a thought: an answer in another layout would not be known again.
_GAP = json.dumps("\n\n")
# One space after a comma and a colon and no other white space, as Python and most training data
# write it: small models would emit line breaks until they run out of tokens.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Lark:
    """The grammars of one model.

    ``specials`` are the tokens that are no text, by how they are written: a grammar must name them,
    since no text can stand for them.
    """

    def __init__(self, specials: Mapping[str, int]) -> None:
        self._specials = specials

    def grammar(
        self,
        constraint: Constraint,
        tools: Sequence[Tool],
        calls: ToolFormat,
        thinking: Thinking | None,
    ) -> str:
        """A grammar that holds an answer to the constraint; where a model reasons, that is first.

        ``calls`` is how calls of the ``tools`` are written.
        """
        rules = ["%llguidance {}", *self._start(thinking)]
        match constraint:
            case JsonAnswer(schema):
                rules.append(f"answer: {_json(schema)}")
            case ForcedCalls(name, many):
                chosen = [t for t in tools if name in (None, t.name)]
                rules += self._calls(chosen, calls, many=many)
            case _:
                assert_never(constraint)
        return "\n".join(rules)

    def _start(self, thinking: Thinking | None) -> list[str]:
        if thinking is None:
            return ["start: answer"]
        end = self._literal(thinking.end)
        if thinking.end in self._specials:
            rules = [f"thought: THOUGHT {end} {_GAP}", "THOUGHT: /(.|\\n)*/"]
        else:
            rules = [f"thought: inside {_GAP}", f"inside[suffix={end}]: /(.|\\n)*/"]
        if thinking.begun:
            return ["start: thought answer", *rules]
        return [f"start: {self._literal(thinking.start)} thought answer | answer", *rules]

    def _calls(self, tools: Sequence[Tool], calls: ToolFormat, *, many: bool) -> list[str]:
        more = f" ({self._literal(calls.between)} call){{0,{MAX_FORCED_CALLS - 1}}}" if many else ""
        each = " | ".join(f"call{n}" for n in range(len(tools)))
        rules = [f"answer: call{more}", f"call: {each}"]
        for n, tool in enumerate(tools):
            head, tail = map(self._literal, calls.around(tool.name))
            rules.append(f"call{n}: {head} arguments{n} {tail}")
            rules.append(f"arguments{n}: {_json({'type': 'object', **tool.parameters})}")
        return rules

    def _literal(self, text: str) -> str:
        """``text`` as Lark writes it: strings, and numbers for the tokens that are no text."""
        parts: list[str] = []
        while text:
            found = [(text.find(s), -len(s), s) for s in self._specials if s in text]
            at, _, special = min(found, default=(len(text), 0, ""))
            if at:
                parts.append(json.dumps(text[:at]))
            if special:
                parts.append(f"<[{self._specials[special]}]>")
            text = text[at + len(special) :]
        return " ".join(parts)


def _json(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**bounded(schema), "x-guidance": _LAYOUT})
