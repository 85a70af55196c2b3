"""The calls in one marked stretch of an answer, told as they are written. Pure."""

import re
from collections.abc import Sequence

import msgspec

from greenroom.runtime.records import Tool, ToolCall, ToolCallDelta
from greenroom.runtime.toolformat import ToolFormat, new_call_id


class CallReader:
    """Reads the calls between two marks; the first of them is the answer's number ``first``.

    Where arguments are JSON (the format has an ``opening``), a call is told from its name on, and
    its arguments as they come. What was told cannot be taken back: it is a call even if its
    arguments turn out to be no JSON, which ``broken`` counts. Any other call is told at the end, as
    the format's parser reads it. ``calls`` are those told so far, ``text`` is all that was read.
    """

    def __init__(self, form: ToolFormat, first: int) -> None:
        self.first = first
        self.text = ""
        self.calls: list[ToolCall] = []
        self._form = form
        self._at = 0
        self._nesting: _Nesting | None = None

    @property
    def broken(self) -> int:
        """How many calls have arguments that are no JSON object."""
        return sum(not _is_object(call.arguments) for call in self.calls)

    def read(self, text: str) -> list[ToolCallDelta]:
        """What the text adds, at most one piece for each call."""
        self.text += text
        told: list[ToolCallDelta] = []
        while True:
            begun = self._begun() if self._nesting is None else None
            if self._nesting is None:
                return told
            stop = self._nesting.read(self.text, self._at)
            piece, self._at = self.text[self._at : stop], stop
            call = self.calls[-1]
            self.calls[-1] = ToolCall(call.id, call.name, call.arguments + piece)
            if piece or begun:
                number = self.first + len(self.calls) - 1
                known = (call.id, call.name) if begun else (None, None)
                told.append(ToolCallDelta(number, piece, *known))
            if self._nesting.depth:
                return told
            self._nesting = None  # another may follow

    def end(self, tools: Sequence[Tool]) -> list[ToolCallDelta]:
        """What was not told yet, once no more text comes. Raises ValueError where no call is."""
        if self.calls:
            return []
        self.calls += self._form.calls(self.text, tools)
        return [
            ToolCallDelta(self.first + n, call.arguments, call.id, call.name)
            for n, call in enumerate(self.calls)
        ]

    def _begun(self) -> bool:
        """Whether a call's arguments begin where reading has got to."""
        opening = self._form.opening
        found = None if opening is None else re.compile(opening).match(self.text, self._at)
        if found is None:
            return False
        self._at = found.end()
        self._nesting = _Nesting()
        self.calls.append(ToolCall(new_call_id(), found["name"], ""))
        return True


class _Nesting:
    """How deep in a JSON object its text has led so far: ``depth`` is 0 once it is closed."""

    def __init__(self) -> None:
        self.depth = 0
        self._quoted = False
        self._escaped = False

    def read(self, text: str, start: int) -> int:
        """Go on from ``start``; where the object ends, or the text."""
        for n in range(start, len(text)):
            character = text[n]
            if self._escaped:
                self._escaped = False
            elif self._quoted and character == "\\":
                self._escaped = True
            elif character == '"':
                self._quoted = not self._quoted
            elif not self._quoted and character in "{[":
                self.depth += 1
            elif not self._quoted and character in "}]":
                self.depth -= 1
                if not self.depth:
                    return n + 1
        return len(text)


def _is_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
