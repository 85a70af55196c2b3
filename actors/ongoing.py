"""One turn as every door sees it: opened, started, then text until it is done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.records import (
    TextDelta,
    TokenLogprob,
    TurnDone,
    TurnEvent,
    TurnProgress,
    TurnRequest,
    TurnStarted,
)


class BrokenTurn(GreenroomError):
    """A turn's events came in an order that they cannot have, or ended early: our own defect."""


class Turns(Protocol):
    """Where turns are opened: any house, near or far."""

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]: ...


class Ongoing:
    """A turn that has begun. ``started`` is its first event; iterating gives text and the end.

    Iteration ends after ``TurnDone`` and raises what went wrong in between.
    """

    def __init__(self, started: TurnStarted, channel: Channel[TurnEvent]) -> None:
        self.started = started
        self._channel = channel

    async def __aiter__(self) -> AsyncIterator[TextDelta | TurnDone]:
        async for event in self.events():
            if not isinstance(event, TurnProgress):
                yield event

    async def events(self) -> AsyncIterator[TurnProgress | TextDelta | TurnDone]:
        """As iterating, and how far the prompt has been read."""
        async for event in self._channel:
            if isinstance(event, TurnStarted):
                raise BrokenTurn("a turn started twice")
            yield event
            if isinstance(event, TurnDone):
                return
        raise BrokenTurn("a turn ended without saying how")

    async def done(self) -> TurnDone:
        """Wait for the end."""
        async for event in self:
            if isinstance(event, TurnDone):
                return event
        raise BrokenTurn("a turn ended without saying how")


@asynccontextmanager
async def opened(house: Turns, request: TurnRequest) -> AsyncIterator[Ongoing]:
    """Ask for a turn and wait until it has started; leaving early cancels the work behind it.

    Raises what ``House.open_turn`` raises, and what stops the turn before its first event.
    """
    async with await house.open_turn(request) as channel:
        async for event in channel:
            if not isinstance(event, TurnStarted):
                raise BrokenTurn("a turn did not start with its start")
            yield Ongoing(event, channel)
            return
        raise BrokenTurn("a turn ended before it started")


async def collected(
    turn: Ongoing, asked: TurnRequest
) -> tuple[TurnDone, list[list[TokenLogprob]] | None]:
    """A turn's end, and the log-probabilities of each of its answers where they were asked for."""
    logprobs: list[list[TokenLogprob]] = [[] for _ in range(asked.n)]
    async for event in turn:
        match event:
            case TextDelta(logprobs=some, choice=choice):
                logprobs[choice] += some
            case TurnDone():
                return event, None if asked.sampling.top_logprobs is None else logprobs
    raise BrokenTurn("a turn ended without saying how")
