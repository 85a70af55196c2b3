"""Those who watch a scene: each gets every event, and none holds up another."""

import asyncio

from greenroom.actors.outbox import Outbox
from greenroom.actors.scene_messages import SceneEvent
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ChannelCancelled, Unavailable

MAX_BEHIND = 10_000
"""Events that may wait for one watcher; whoever is further behind than that has to come again."""


class Audience:
    """Channels that get what is ``put``."""

    def __init__(self) -> None:
        self._watching: dict[Channel[SceneEvent], Outbox[SceneEvent]] = {}
        self._nobody = asyncio.Event()

    def join(self, channel: Channel[SceneEvent]) -> None:
        """Send everything there too, from now on."""
        self._watching[channel] = Outbox(channel)
        self._nobody.clear()
        channel.on_cancel(lambda: self._drop(channel))

    async def gone(self) -> None:
        """Wait until nobody watches."""
        await self._nobody.wait()

    async def leave(self, channel: Channel[SceneEvent], error: BaseException | None = None) -> None:
        """Send nothing more there; it ends when what waits has been read, or at once of ``error``.

        A reader that leaves ends it too.
        """
        outbox = self._drop(channel)
        if error is not None:
            channel.fail(error)
        elif outbox is not None:
            try:
                await outbox.flush()
            except ChannelCancelled:
                return
            channel.close()

    def put(self, event: SceneEvent) -> None:
        """Send an event to all; those who have left are forgotten."""
        for channel, outbox in tuple(self._watching.items()):
            if outbox.num_waiting > MAX_BEHIND:
                self._drop(channel)
                channel.fail(Unavailable("too far behind the scene; watch it again"))
                continue
            try:
                outbox.put(event)
            except ChannelCancelled:
                self._drop(channel)

    def close(self) -> None:
        """The scene's actor is going."""
        for channel in tuple(self._watching):
            self._drop(channel)
            channel.close()

    def _drop(self, channel: Channel[SceneEvent]) -> Outbox[SceneEvent] | None:
        outbox = self._watching.pop(channel, None)
        if not self._watching:
            self._nobody.set()
        return outbox
