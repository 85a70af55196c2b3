"""Bounds on what a connection may hold, and on the time that a body takes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext

from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler, Middleware

from greenroom.runtime.errors import GreenroomError, Unavailable

LONGEST_PATIENCE_S = 30.0
_LONG_BODIES = "/import"


class TooSlow(GreenroomError):
    """A request's body did not come in time: the caller's fault, or their network's."""


class TooMany(Unavailable):
    """As many sockets or turns as are served are there: come back later."""


class Turnstile:
    """Counts ``what`` is there: no more than ``most`` at the same time.

    ``refused`` is told of every other.
    """

    def __init__(self, most: int, what: str, refused: Callable[[Unavailable], object]) -> None:
        self._most = most
        self._what = what
        self._refused = refused
        self._since: dict[int, float] = {}  # by number of arrival, the oldest first
        self._arrivals = 0

    @property
    def num_inside(self) -> int:
        """How many are there now."""
        return len(self._since)

    def check(self) -> None:
        """Raise TooMany where one more is one too many."""
        if len(self._since) >= self._most:
            message = f"{self._most} {self._what} are served at a time"
            error = TooMany(message, retry_after_s=self._patience_s())
            self._refused(error)
            raise error

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Count one while the block runs. Raises TooMany where that is one too many."""
        self.check()
        self._arrivals += 1
        number = self._arrivals
        self._since[number] = time.monotonic()
        try:
            yield
        finally:
            del self._since[number]

    def _patience_s(self) -> float:
        """As long as the oldest has been there, at most: then about as many have left. Chance
        spreads those who are refused together, or they would come back together."""
        oldest_s = time.monotonic() - next(iter(self._since.values()))
        return random.uniform(1.0, min(max(2.0, oldest_s), LONGEST_PATIENCE_S))


def taking_in(limit_s: float, turns: Turnstile, asking: Collection[Handler]) -> Middleware:
    """The middleware that reads a body before its handler asks for it, within ``limit_s`` seconds.

    Handlers that are ``asking`` for turns go through the turnstile, and where that is full nothing
    is read at all. What is imported may be large: it is read as it comes, by its own handler.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = request.match_info.handler in asking
        if asks:
            turns.check()
        if request.can_read_body and not request.path.endswith(_LONG_BODIES):
            most, length = request.client_max_size, request.content_length or 0
            if length > most:  # which it says itself: nothing of it is waited for
                raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=length)
            try:
                async with asyncio.timeout(limit_s):
                    await request.read()
            except TimeoutError:
                raise TooSlow(f"the body did not come within {limit_s:g} s") from None
        with turns.passed() if asks else nullcontext():
            return await handler(request)

    return middleware


async def pieces_in(content: StreamReader, num_bytes: int, limit_s: float) -> AsyncIterator[bytes]:
    """A large body in pieces of ``num_bytes``, the last one shorter, each within ``limit_s``."""
    while not content.at_eof():
        try:
            async with asyncio.timeout(limit_s):
                piece = await content.readexactly(num_bytes)
        except asyncio.IncompleteReadError as last:
            piece = last.partial
        except TimeoutError:
            raise TooSlow(f"{num_bytes} bytes of it did not come within {limit_s:g} s") from None
        yield piece


async def taken(
    request: web.Request, response: web.StreamResponse, data: bytes, limit_s: float
) -> None:
    """Send ``data``, and wait until its reader has taken what was too much to be waiting.

    Raises ConnectionResetError, as for one who has left, when that takes more than ``limit_s``.
    """
    try:
        async with asyncio.timeout(limit_s):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"nothing was read for {limit_s:g} s") from None
