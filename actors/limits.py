"""Bounds on what a connection may hold: the time a body takes, and the files the process may."""

import asyncio
import resource

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from greenroom.runtime.errors import GreenroomError

MAX_FILES = 10_240  # what macOS allows at most
_LONG_BODIES = "/import"


class TooSlow(GreenroomError):
    """A request's body did not come in time: the caller's fault, or their network's."""


def reading_in(limit_s: float) -> Middleware:
    """The middleware that reads a body before its handler asks for it, within ``limit_s`` seconds.

    What is imported may be large: it is read as it comes, by its own handler.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.can_read_body and not request.path.endswith(_LONG_BODIES):
            try:
                async with asyncio.timeout(limit_s):
                    await request.read()
            except TimeoutError:
                raise TooSlow(f"the body did not come within {limit_s:g} s") from None
        return await handler(request)

    return middleware


def allow_many_sockets() -> None:
    """Raise the process's own limit of open files, which are sockets too, as far as it may be.

    Many systems start with 1,024 or fewer: idle connections would keep others out.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
