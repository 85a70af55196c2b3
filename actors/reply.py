"""What comes of saying something: a whole reply, or one that is read as it comes."""

import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from greenroom.actors.toolloop import ToolRun
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.records import (
    FinishReason,
    TextDelta,
    Timings,
    ToolCall,
    TurnDone,
    TurnEvent,
    Usage,
)

T = TypeVar("T")


class Reply(msgspec.Struct, frozen=True):
    """A whole answer. ``usage`` counts tokens, ``timings`` are milliseconds.

    ``head`` is the segment where the agent stands now; None when it is not durable yet
    (``memory.durability = "async"``). ``tool_calls`` are calls that are left to the caller,
    ``tool_runs`` the tools that were run on the way; with those, everything else is that of the
    last round. ``notices`` are what the caller should know besides, as ``code: words``.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_runs: tuple[ToolRun, ...] = ()
    reasoning: str = ""
    notices: tuple[str, ...] = ()

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were remembered, and needed no forward pass."""
        return self.usage.cached_tokens


class Shaped(Reply, Generic[T], frozen=True, kw_only=True):
    """A whole answer that is a ``value`` of the type that was asked for."""

    value: T


class AnswerIncomplete(GreenroomError):
    """An answer of a given type was cut short (``max_tokens``, a stop string), and is not one.

    ``reply`` has its text. The agent remembers what it said.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"the answer ended too early ({reply.finish_reason}) to be what was asked")
        self.reply = reply


class AnswerRejected(GreenroomError):
    """An answer has the form that was asked for, and its type refuses it all the same, as it may
    check what no schema says (a pydantic validator). Why is in ``__cause__``.

    ``reply`` has its text. The agent remembers what it said.
    """

    def __init__(self, reply: Reply, reason: Exception) -> None:
        super().__init__(f"the answer is whole, and its type refuses it: {reason}")
        self.reply = reply


class NoReplyYet(GreenroomError):
    """A stream was asked for its reply before it came to its end, or after it was left early."""


class Stream:
    """An answer as it comes: iterate once, for pieces of text or for all events.

    Leaving the loop (``break``, an exception) cancels the turn, which is then not remembered. In
    CPython that happens at the loop's next step; ``async with`` makes it happen before the next
    line everywhere::

        async with alice.stream("Tell me a long story.") as story:
            async for text in story:
                if "dragon" in text:
                    break
    """

    def __init__(self, begin: Callable[[], AsyncGenerator[TurnEvent | ToolRun]]) -> None:
        self._begin = begin
        self._done: TurnDone | None = None
        self._runs: list[ToolRun] = []
        # Weak: whoever iterates holds it, and letting go of it is leaving.
        self._reading: weakref.ref[AsyncGenerator[Any]] | None = None

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has come to its end. Raises NoReplyYet."""
        if self._done is None:
            raise NoReplyYet("the answer is not complete: read the stream to its end first")
        return _reply(self._done, tuple(self._runs))

    async def whole(self) -> Reply:
        """Read it to its end, and give the reply."""
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        return self.reply

    def events(self) -> AsyncGenerator[TurnEvent | ToolRun]:
        """Everything that happens: for each round TurnStarted, TurnProgress while a long prompt is
        read, TextDelta and at last TurnDone; and between two rounds what tools did."""
        return self._read(self._all())

    def __aiter__(self) -> AsyncGenerator[str]:
        """The text, piece by piece."""
        return self._read(self._texts())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        reading = self._reading() if self._reading is not None else None
        if reading is not None:
            await reading.aclose()

    def _read(self, reading: AsyncGenerator[T]) -> AsyncGenerator[T]:
        if self._reading is not None:
            raise RuntimeError("a stream is one turn: it is read once")
        self._reading = weakref.ref(reading)
        return reading

    async def _all(self) -> AsyncGenerator[TurnEvent | ToolRun]:
        async with aclosing(self._begin()) as events:
            async for event in events:
                if isinstance(event, TurnDone):
                    self._done = event
                elif isinstance(event, ToolRun):
                    self._runs.append(event)
                yield event

    async def _texts(self) -> AsyncGenerator[str]:
        async with aclosing(self._all()) as events:
            async for event in events:
                if isinstance(event, TextDelta) and event.text:  # empty: half a character
                    yield event.text


def _reply(done: TurnDone, runs: tuple[ToolRun, ...]) -> Reply:
    return Reply(
        text=done.text,
        finish_reason=done.finish_reason,
        usage=done.usage,
        timings=done.timings,
        head=done.head,
        tool_calls=done.tool_calls,
        tool_runs=runs,
        reasoning=done.reasoning,
        notices=done.notices,
    )


def shaped(reply: Reply, read: Callable[[str], T]) -> Shaped[T]:
    """The reply with its text read as a value. Raises AnswerIncomplete, AnswerRejected."""
    try:
        value = read(reply.text)
    except ValueError as error:
        if _is_whole(reply.text):
            raise AnswerRejected(reply, error) from error
        raise AnswerIncomplete(reply) from error
    return Shaped(**msgspec.structs.asdict(reply), value=value)


def _is_whole(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True
