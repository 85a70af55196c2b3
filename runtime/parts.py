"""An answer's parts: what a model thinks, says, and wants to have called, told from one another."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from mlx_lm.generate import TextStateMachine
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.calling import CallReader
from greenroom.runtime.records import Tool, ToolCall, ToolCallDelta
from greenroom.runtime.toolformat import HERMES, Thinking, ToolFormat, native_format

Edges = dict[str, list[tuple[str, str]]]
"""mlx-lm's state machine: from a state by a text to the next state."""


class Marks(msgspec.Struct, frozen=True):
    """How one model marks the parts of its answers.

    ``native`` is its own way of writing calls, None if it has none. ``structure`` are marks that
    mean nothing to a reader, ``transitions`` what a model's own code says of its answers.
    """

    thinking: Thinking | None
    native: ToolFormat | None
    structure: tuple[str, ...] = ()
    transitions: Mapping[str, Sequence[tuple[str, str]]] = {}

    @property
    def calls(self) -> ToolFormat:
        """How calls are written where no grammar forces them."""
        return self.native or HERMES

    def loosely(self, text: str) -> re.Pattern[str] | None:
        """What matches an answer whatever white space is next to its marks; None if it has none."""
        marks = [self.calls.start, self.calls.end]
        if self.thinking is not None:
            marks += [self.thinking.start, self.thinking.end]
        either = "|".join(re.escape(mark) for mark in marks if mark)
        pieces = re.split(rf"\s*({either})\s*", text)
        if len(pieces) == 1:
            return None
        if self.thinking is not None:  # it may begin in a thought, whose mark is before it
            pieces = ["", "", pieces[0].lstrip(), *pieces[1:]]
        loose = (rf"\s*{re.escape(p)}\s*" if n % 2 else re.escape(p) for n, p in enumerate(pieces))
        # White space at the very end would belong to what follows.
        return re.compile("".join(loose).removesuffix(r"\s*"))

    def thinking_after(self, prompt: str) -> Thinking | None:
        """The same, knowing whether a prompt that ends so has opened a thought already."""
        if self.thinking is None:
            return None
        begun = prompt.rfind(self.thinking.start) > prompt.rfind(self.thinking.end)
        return msgspec.structs.replace(self.thinking, begun=begun)

    def edges(self, calls: ToolFormat | None) -> Edges:
        """The transitions between "normal", "reasoning" and, where calls are read, "tool"."""
        edges: Edges = {"normal": [], "reasoning": [], "tool": []}
        if self.thinking is not None:
            edges["normal"].append((self.thinking.start, "reasoning"))
            edges["reasoning"].append((self.thinking.end, "normal"))
        if calls is not None:
            declared = {to for each in self.transitions.values() for _, to in each}
            if "tool" not in declared:
                edges["normal"].append((calls.start, "tool"))
            edges["reasoning"].append((calls.start, "tool"))
            if calls.end:
                edges["tool"].append((calls.end, "normal"))
        edges["normal"] += [(mark, "normal") for mark in self.structure]
        for state, more in self.transitions.items():
            known = [e for e in more if calls is not None or e[1] != "tool"]
            edges.setdefault(state, []).extend(known)
        return edges


BARE = Marks(None, None)
"""What continues a bare prompt has one part."""


def read_marks(tokenizer: TokenizerWrapper) -> Marks:
    """How this model marks its parts, as mlx-lm has found out from its vocabulary and template."""
    thinking = None
    if tokenizer.has_thinking:
        thinking = Thinking(str(tokenizer.think_start), str(tokenizer.think_end))
    return Marks(
        thinking,
        native_format(tokenizer),
        tuple(tokenizer.structural_markers),
        dict(tokenizer.response_transitions),
    )


class Said(msgspec.Struct, frozen=True):
    """What a piece of text added to each part."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCallDelta, ...] = ()


class Parts:
    """Tells the parts of one answer as its text comes in; each is held back only while in doubt.

    White space next to a mark belongs to no part. Calls are told as ``CallReader`` reads them; what
    is marked as one and is none is told as content, marks and all. ``unread`` counts those, and
    ``broken`` calls whose arguments are no JSON.
    """

    def __init__(
        self,
        marks: Marks,
        tools: Sequence[Tool] = (),
        calls: ToolFormat | None = None,
        *,
        thinking: bool = False,
    ) -> None:
        """``calls`` is how calls are written, None to read none; ``thinking`` if it begins so."""
        self._calls = calls
        self._tools = tools
        edges = marks.edges(calls)
        self._plain = not any(edges.values())
        machine: Any = TextStateMachine(edges)
        self._at = "reasoning" if thinking else "normal"
        self._machine = machine.make_state(self._at)
        self._reader: CallReader | None = None
        self._spaces = ""  # after content or a thought: part of it only if more follows
        self._marked = False
        self.content = ""
        self.reasoning = ""
        self.calls: tuple[ToolCall, ...] = ()
        self.unread = 0
        self.broken = 0

    @property
    def thinks(self) -> bool:
        """Whether what comes next is part of a thought."""
        return self._at == "reasoning"

    def read(self, text: str) -> Said:
        """What the text adds."""
        if self._plain:
            self.content += text
            return Said(text)
        self._machine, segments = TextStateMachine.split(self._machine, text)
        return self._told(segments)

    def end(self) -> Said:
        """What was held back, once no more text comes."""
        self._machine, held, state = TextStateMachine.flush(self._machine)
        before = self._told([(str(state), str(held))])
        last = Said()
        if self._reader is not None:
            last = self._called(closed=False)
        elif not self._marked and self._at == "normal":
            last = Said(self._spaces)
        self._spaces = ""
        self.content += last.content
        return Said(before.content + last.content, before.reasoning, before.calls + last.calls)

    def _told(self, segments: Sequence[tuple[str, str]]) -> Said:
        content = reasoning = ""
        calls: tuple[ToolCallDelta, ...] = ()
        for n, (state, text) in enumerate(segments):
            if n:
                if self._at == "tool":
                    said = self._called(closed=True)
                    content, calls = content + said.content, calls + said.calls
                self._spaces, self._marked = "", True
            self._at = state
            if state == "tool":
                calls += self._calling(text)
            elif state == "reasoning":
                reasoning += self._solid(text, started=bool(self.reasoning or reasoning))
            else:
                started = not self._marked or bool(self.content or content)
                content += self._solid(text, started=started)
        self.content += content
        self.reasoning += reasoning
        return Said(content, reasoning, calls)

    def _solid(self, text: str, *, started: bool) -> str:
        """The text without white space that may turn out to be at the part's end."""
        text = self._spaces + text
        solid = text.rstrip()
        self._spaces = text[len(solid) :] if started or solid else ""
        return solid if started else solid.lstrip()

    def _calling(self, text: str) -> tuple[ToolCallDelta, ...]:
        assert self._calls is not None
        if self._reader is None:
            self._reader = CallReader(self._calls, len(self.calls))
        told = self._reader.read(text)
        self.calls = (*self.calls[: self._reader.first], *self._reader.calls)
        return tuple(told)

    def _called(self, *, closed: bool) -> Said:
        """A marked stretch is over: what of it has not been told."""
        assert self._calls is not None
        reader, self._reader = self._reader, None
        assert reader is not None
        try:
            told = reader.end(self._tools)
        except ValueError:
            self.unread += 1
            end = self._calls.end if closed else ""
            return Said(f"{self._calls.start}{reader.text}{end}")
        self.calls = (*self.calls[: reader.first], *reader.calls)
        self.broken += reader.broken
        return Said(calls=tuple(told))
