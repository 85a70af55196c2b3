"""Server-sent events: a stream that stays alive in silence, and never ends in silence."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from greenroom.actors.limits import taken
from greenroom.actors.problems import Problem, problem
from greenroom.actors.request_id import REQUEST_ID
from greenroom.runtime.settings import ServerSettings

CACHED_HEADER = "X-Cached-Tokens"
PROGRESS_HEADER = "X-Stream-Progress"
"""With any value but "false" or "0", a stream also tells how much of the prompt has been read."""

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_KEEPALIVE = b": keep-alive\n\n"


def framed(data: bytes, name: str | None = None) -> bytes:
    """One event, whole; ``data`` is a single line."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + data + b"\n\n"


def wants_progress(request: web.Request) -> bool:
    """Whether the client has asked for events that it would not otherwise expect."""
    return request.headers.get(PROGRESS_HEADER, "false").lower() not in ("false", "0")


class EventStream:
    """The events of one answer. Its headers go out with ``open``, or with the first keep-alive.

    A reader who takes nothing for ``reader_timeout_s`` seconds counts as one who has left.
    """

    def __init__(self, request: web.Request, reader_timeout_s: float) -> None:
        self.response = web.StreamResponse(headers=_HEADERS)
        self._request = request
        self._reader_timeout_s = reader_timeout_s
        self._opening: asyncio.Task[None] | None = None
        self._last = asyncio.get_running_loop().time()

    @property
    def opened(self) -> bool:
        """Whether the status is on its way: what goes wrong from now on is an event."""
        return self._opening is not None

    async def open(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the headers, once; later ones are lost."""
        if self._opening is None:
            self.response.headers.update(headers or {})
            self._opening = asyncio.create_task(self._prepare())
        await asyncio.shield(self._opening)

    async def _prepare(self) -> None:
        await self.response.prepare(self._request)

    async def send(self, data: bytes) -> None:
        """Send an event. Raises ConnectionResetError when the client has left."""
        await self.open()
        self._last = asyncio.get_running_loop().time()
        await taken(self._request, self.response, data, self._reader_timeout_s)

    async def keep_alive(self, every_s: float) -> None:
        """Send a comment whenever nothing was sent for ``every_s`` seconds, for ever."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionResetError):
            while True:
                wait_s = self._last + every_s - loop.time()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                else:
                    await self.send(_KEEPALIVE)


@asynccontextmanager
async def streaming(
    request: web.Request,
    server: ServerSettings,
    failed: Callable[[Problem], bytes] = lambda told: framed(told.json()),
) -> AsyncIterator[EventStream]:
    """A stream for the block to send to, kept alive every ``server.keepalive_s`` (0: never).

    What goes wrong before anything was sent is raised, and gets a status; afterwards ``failed``
    makes an event of it, which is the last one. A client that leaves ends the handler by
    cancellation; where a write sees it first, the block ends and nothing is raised.
    """
    stream = EventStream(request, server.reader_timeout_s)
    every_s = server.keepalive_s
    alive = asyncio.create_task(stream.keep_alive(every_s)) if every_s else None
    try:
        with suppress(ConnectionResetError):
            try:
                yield stream
            except ConnectionResetError:
                raise
            except Exception as error:  # the HTTP edge: an error in mid-stream is told, not hidden
                if not stream.opened:
                    raise
                await stream.send(failed(problem(error, request[REQUEST_ID])))
            await stream.response.write_eof()
    finally:
        if alive is not None:
            alive.cancel()
