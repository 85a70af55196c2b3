"""Time as the kernel sees it: a protocol, so that tests run on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A pending call, as ``call_later`` returns it."""

    def cancel(self) -> None:
        """Forget the call; harmless when it has already run."""


class Clock(Protocol):
    """Monotonic seconds, and calls in the future. All of it belongs to the event loop's thread."""

    def now(self) -> float:
        """Monotonic seconds; only differences mean anything."""

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Run ``callback(*args)`` on the loop after ``delay_s`` seconds."""

    async def sleep(self, delay_s: float) -> None:
        """Suspend the calling task for ``delay_s`` seconds."""


class LoopClock:
    """The running loop's own time. On the test kit's deterministic loop that time is virtual."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        """The loop's monotonic seconds."""
        return self._loop.time()

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Run ``callback(*args)`` on the loop after ``delay_s`` seconds."""
        return self._loop.call_later(delay_s, callback, *args)

    async def sleep(self, delay_s: float) -> None:
        """Suspend the calling task for ``delay_s`` seconds."""
        await asyncio.sleep(delay_s)
