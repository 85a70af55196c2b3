"""``/v1/agents/{name}/export`` and ``/import``: an agent and its memory as one file."""

from collections.abc import AsyncIterator

from aiohttp import web

from greenroom.actors.answers import json_answer
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import named
from greenroom.actors.limits import pieces_in, taken
from greenroom.runtime.errors import InvalidRequest

CHUNK_BYTES = 1 << 18


class PortageDoor:
    """The handlers that carry agents out of one house and into it."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def export(self, request: web.Request) -> web.StreamResponse:
        """The agent as a file. One that breaks off is seen to be incomplete by its reader."""
        name = named(request.match_info["name"], "name")
        chunks = self._house.export(request[NAMESPACE], name)
        # What is wrong with the request shows with the first chunk, while there is a status.
        first = await anext(chunks)
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{_file_name(name)}"',
            }
        )
        await response.prepare(request)
        reader_timeout_s = self._house.settings.server.reader_timeout_s
        try:
            await taken(request, response, first, reader_timeout_s)
            async for chunk in chunks:
                await taken(request, response, chunk, reader_timeout_s)
        except Exception as error:
            # The status is gone: an answer without its end is how the client learns of it.
            raise ConnectionResetError("the export broke off") from error
        await response.write_eof()
        return response

    async def import_named(self, request: web.Request) -> web.Response:
        """Take a file in under the name in the path."""
        return await self._import(request, named(request.match_info["name"], "name"))

    async def import_own(self, request: web.Request) -> web.Response:
        """Take a file in under the name that the agent had."""
        return await self._import(request, None)

    async def _import(self, request: web.Request, name: str | None) -> web.Response:
        info = await self._house.import_agent(request[NAMESPACE], name, self._body(request))
        return json_answer(info, status=201)

    async def _body(self, request: web.Request) -> AsyncIterator[bytes]:
        server = self._house.settings.server
        limit = server.max_import_mb << 20
        num_bytes = 0
        async for chunk in pieces_in(request.content, CHUNK_BYTES, server.body_timeout_s):
            num_bytes += len(chunk)
            if num_bytes > limit:
                raise InvalidRequest(
                    f"The file has more than {limit >> 20} MB (server.max_import_mb).",
                    code="body_too_large",
                )
            yield chunk


def _file_name(agent: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in agent)
    return f"{plain}.greenroom"
