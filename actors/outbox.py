"""What a turn has told its caller, and what of it still waits for a slow reader."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ChannelCancelled

E = TypeVar("E")


class Outbox(Generic[E]):
    """Events on their way into a channel, in order; putting one in never waits.

    So a turn is computed, remembered and off the stage at its own pace, however slowly it is
    read. An answer is small and its length is bounded, so the box needs no bound of its own.
    """

    def __init__(self, channel: Channel[E]) -> None:
        self._channel = channel
        self._waiting: deque[E] = deque()
        self._empty: asyncio.Future[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Events that the channel has had no room for yet."""
        return len(self._waiting)

    def put(self, event: E) -> None:
        """Send the event when its turn comes. Raises ChannelCancelled once the reader has left."""
        self._check()
        self._waiting.append(event)
        if len(self._waiting) == 1:
            self._pump()

    async def flush(self) -> None:
        """Wait until everything is in the channel. Raises ChannelCancelled if the reader leaves."""
        if self._waiting:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty
        self._check()

    def _check(self) -> None:
        if self._channel.cancelled:
            raise ChannelCancelled("the reader has left")

    def _pump(self) -> None:
        """Send what there is room for, and come back when there is more."""
        while self._waiting and not self._channel.full and not self._channel.closed:
            self._channel.send_nowait(self._waiting.popleft())
        if self._channel.closed:
            self._waiting.clear()
        if self._waiting:
            self._channel.on_room(self._pump)
        elif self._empty is not None and not self._empty.done():
            self._empty.set_result(None)
