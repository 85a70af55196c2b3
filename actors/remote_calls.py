"""Calls of a server: one request, and its answer as a type or as it comes."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import msgspec

from greenroom.actors.remote_errors import ServerLost, error_in

T = TypeVar("T")


@asynccontextmanager
async def answered(
    client: aiohttp.ClientSession, method: str, path: str, **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A good answer of the server. Raises what it tells otherwise, and ServerLost."""
    try:
        async with client.request(method, path, **options) as response:
            if response.status >= 400:
                retry_after = response.headers.get("Retry-After")
                raise error_in(await response.read(), response.status, retry_after)
            yield response
    except (aiohttp.ClientError, OSError) as error:
        raise lost(error) from error


async def call(
    client: aiohttp.ClientSession, method: str, path: str, answer: type[T], body: object = None
) -> T:
    """The answer to a request whose ``body`` is sent as JSON. Raises as ``answered``."""
    data = None if body is None else msgspec.json.encode(body)
    async with answered(client, method, path, data=data) as response:
        return msgspec.json.decode(await response.read(), type=answer)


async def streamed(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The data of an answer's server-sent events, each a single line however long."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                yield line.removeprefix(b"data: ")


def lost(error: Exception) -> ServerLost:
    """What it means that a connection failed."""
    return ServerLost(f"the server cannot be reached: {str(error) or type(error).__name__}")
