"""Channels that are filled from a server, while a remote room is open."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from greenroom.actors.remote_errors import ServerLost
from greenroom.runtime.channel import Channel

E = TypeVar("E")

EVENTS_AHEAD = 256


class RemoteFeeds:
    """Tasks, each of which fills a channel until it returns; its end is the channel's.

    What a task raises ends its channel, and so does closing: the reader gets a ServerLost then,
    whose turn or scene goes no further.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, fill: Callable[[Channel[E]], Coroutine[Any, Any, None]]) -> Channel[E]:
        """A channel that ``fill`` fills; a reader that leaves cancels it."""
        channel: Channel[E] = Channel(EVENTS_AHEAD)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                channel.fail(ServerLost("the room was closed before this had ended"))
            elif (error := task.exception()) is not None:
                channel.fail(error)
            else:
                channel.close()

        task = asyncio.create_task(fill(channel))
        self._tasks.add(task)
        task.add_done_callback(over)
        channel.on_cancel(task.cancel)
        return channel

    async def close(self) -> None:
        """Give up all that is being filled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
