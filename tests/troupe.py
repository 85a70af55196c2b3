"""An actor that does what its messages say, for the tests of the kernel."""

import asyncio
from typing import Any, assert_never

from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.message import Message, Request, Terminated


class BoomError(Exception):
    """A crash."""


class Note(Message, frozen=True):
    n: int


class Notes(Request[list[int]], frozen=True):
    """What has been noted in this generation."""


class Work(Request[str], frozen=True):
    label: str
    seconds: float = 1.0


class Crash(Request[None], frozen=True):
    """Fail after ``seconds``; ``refuse``: with a typed refusal, which is no crash."""

    refuse: bool = False
    seconds: float = 0.0


class Stream(Message, frozen=True):
    """Send numbers for ever, one a second."""

    reply: Channel[int]


class Play(Request[None], frozen=True):
    """As Stream, for somebody who asks."""

    reply: Channel[int]


Order = Note | Play | Notes | Work | Crash | Stream | Terminated


class Worker(Actor[Order]):
    """Keeps a ``trace`` of what happens to it that outlives its instances."""

    def __init__(self, trace: list[Any] | None = None, *, slow_stop_s: float = 0.0) -> None:
        self.trace = [] if trace is None else trace
        self.notes: list[int] = []
        self.slow_stop_s = slow_stop_s

    async def on_start(self) -> None:
        self.trace.append("start")

    async def on_stop(self) -> None:
        await asyncio.sleep(self.slow_stop_s)
        self.trace.append("stop")

    def on_crash(self, error: BaseException) -> None:
        self.trace.append(f"given up: {type(error).__name__}")

    async def handle(self, message: Order) -> object:
        match message:
            case Note(n):
                self.notes.append(n)
                self.trace.append(n)
            case Notes():
                return list(self.notes)
            case Work(label, seconds):
                return await self.work(label, seconds)
            case Crash(refuse, seconds):
                await asyncio.sleep(seconds)
                raise InvalidRequest("refused", param="refuse") if refuse else BoomError
            case Stream(reply) | Play(reply):
                await self.stream(reply)
            case Terminated():
                self.trace.append((message.ref.path, message.reason))
            case _:
                assert_never(message)
        return None

    async def work(self, label: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.trace.append(f"{label} cancelled")
            raise
        self.trace.append(f"{label} done")
        return label

    async def stream(self, reply: Channel[int]) -> None:
        n = 0
        try:
            while True:
                await reply.send(n)
                n += 1
                await asyncio.sleep(1.0)
        except asyncio.CancelledError:
            self.trace.append(f"stream cancelled after {n}")
            raise
