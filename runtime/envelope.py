"""The envelope: a message under way, and who is to hear what becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from greenroom.runtime.channel import Channel


class Envelope(Struct, eq=False):
    """A message under way. ``at``: when it was queued, then when its handling began.

    ``reply`` is the asker's future, ``admitted`` that of a sender who waits for room.
    ``abandoned``: whoever wanted it has left, and its handler has been asked to stop.
    """

    message: object
    reply: asyncio.Future[Any] | None = None
    at: float = 0.0
    admitted: asyncio.Future[None] | None = None
    abandoned: bool = False

    @property
    def channel(self) -> Channel[Any] | None:
        """The message's reply channel, if it has one."""
        reply = getattr(self.message, "reply", None)
        return reply if isinstance(reply, Channel) else None

    def fail(self, error: BaseException) -> bool:
        """Give the sender the error, by its future or its channel; False if nobody listens."""
        heard = False
        for future in (self.reply, self.admitted):
            if future is not None and not future.done():
                future.set_exception(error)
                heard = True
        channel = self.channel
        if channel is not None and not channel.closed:
            channel.fail(error)
            heard = True
        return heard
