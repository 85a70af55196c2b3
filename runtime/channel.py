"""The reply channel: the one live thing in a message.

One producer, one reader, a bounded buffer. The producer learns at once when the reader leaves; a
slow reader makes its own producer wait and nobody else's. It belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from greenroom.runtime.errors import ChannelCancelled, ChannelClosed, ChannelFull

E = TypeVar("E")
Callback = Callable[[], object]


class Channel(Generic[E]):
    """A bounded stream of events from one producer to one reader.

    The reader iterates; leaving ``async with channel:`` before the end cancels. The producer
    sends, then closes or fails. What is in the buffer when it does so still reaches the reader.
    """

    __slots__ = (
        "_buffer",
        "_cancelled",
        "_capacity",
        "_closed",
        "_error",
        "_on_cancel",
        "_on_room",
        "_reader",
        "_writer",
    )

    def __init__(self, capacity: int = 64) -> None:
        if capacity < 1:
            raise ValueError("a channel needs room for at least one event")
        self._capacity = capacity
        self._buffer: deque[E] = deque()
        self._cancelled = False
        self._closed = False
        self._error: BaseException | None = None
        self._on_cancel: list[Callback] = []
        self._on_room: Callback | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def cancelled(self) -> bool:
        """The reader has left before the end."""
        return self._cancelled

    @property
    def closed(self) -> bool:
        """No further event can be sent: closed, failed or cancelled."""
        return self._closed or self._cancelled

    @property
    def full(self) -> bool:
        """``send`` would wait."""
        return len(self._buffer) >= self._capacity

    # -- the producer's side

    def send_nowait(self, event: E) -> None:
        """Queue an event. Raises ChannelFull, ChannelCancelled or ChannelClosed."""
        self._check_open()
        if self.full:
            raise ChannelFull("the reader is slower than the producer")
        self._buffer.append(event)
        _wake(self._reader)

    async def send(self, event: E) -> None:
        """Queue an event, waiting for room. Raises ChannelCancelled or ChannelClosed."""
        self._check_open()
        while self.full:
            if self._writer is not None:
                raise RuntimeError("a channel has one producer")
            self._writer = asyncio.get_running_loop().create_future()
            try:
                await self._writer
            finally:
                self._writer = None
            self._check_open()
        self._buffer.append(event)
        _wake(self._reader)

    def on_room(self, callback: Callback) -> None:
        """Call back once when a full buffer has room again or the reader leaves; at once if so."""
        if self.full and not self.closed:
            self._on_room = callback
        else:
            callback()

    def on_cancel(self, callback: Callback) -> None:
        """Call back when the reader leaves before the end; at once if it has left already."""
        if self._cancelled:
            callback()
        elif not self._closed:
            self._on_cancel.append(callback)

    def close(self) -> None:
        """The stream is complete. Harmless when it is over already."""
        self._finish(None)

    def fail(self, error: BaseException) -> None:
        """The stream ends here: the reader gets what is buffered, then this error."""
        self._finish(error)

    # -- the reader's side

    def cancel(self) -> None:
        """Leave: drop what is buffered and tell the producer. Nothing happens after the end."""
        if self.closed:
            return
        self._cancelled = True
        self._buffer.clear()
        callbacks, self._on_cancel = self._on_cancel, []
        _wake(self._reader)
        self._give_room()
        for callback in callbacks:
            callback()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while not self._buffer:
            if self.closed:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            if self._reader is not None:
                raise RuntimeError("a channel has one reader")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        event = self._buffer.popleft()
        self._give_room()
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    # --

    def _check_open(self) -> None:
        if self._cancelled:
            raise ChannelCancelled("the reader has left")
        if self._closed:
            raise ChannelClosed("the channel is closed")

    def _finish(self, error: BaseException | None) -> None:
        if self.closed:
            return
        self._closed = True
        self._error = error
        self._on_cancel.clear()
        _wake(self._reader)
        self._give_room()

    def _give_room(self) -> None:
        _wake(self._writer)
        callback, self._on_room = self._on_room, None
        if callback is not None:
            callback()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
