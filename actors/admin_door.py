"""``/admin``: which model is served, what is in memory, and draining; for operators."""

import msgspec
from aiohttp import web

from greenroom.actors.answers import json_answer
from greenroom.actors.fields import decode_known
from greenroom.actors.house import House
from greenroom.actors.house_records import ModelCard, Repertoire
from greenroom.runtime.errors import InvalidRequest


class SwapBody(msgspec.Struct):
    """The model to serve: a catalog name, a Hugging Face id or a folder."""

    model: str | None = None


class DrainBody(msgspec.Struct):
    """Whether to refuse new turns."""

    draining: bool = True


class Models(msgspec.Struct, frozen=True):
    """What plays, None where no model is loaded, and what could."""

    current: ModelCard | None
    available: tuple[Repertoire, ...]


class Readiness(msgspec.Struct, frozen=True):
    """Whether turns are taken."""

    ready: bool


class AdminDoor:
    """The handlers for operators in front of one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def status(self, _request: web.Request) -> web.Response:
        """Every actor, what the stage has done, and what is kept where."""
        return json_answer(await self._house.status())

    async def models(self, _request: web.Request) -> web.Response:
        """What plays and what could."""
        current = self._house.model if self._house.loaded else None
        return json_answer(Models(current, await self._house.repertoire()))

    async def swap(self, request: web.Request) -> web.Response:
        """Serve another model; turns end first, and new ones are told to come back."""
        name = decode_known(await request.read(), SwapBody).model
        if not name:
            raise InvalidRequest("model is missing.", param="model", code="missing_value")
        return json_answer(await self._house.swap(name))

    async def offload(self, _request: web.Request) -> web.Response:
        """Let go of the model; a swap loads one again."""
        await self._house.offload()
        return json_answer(Readiness(self._house.ready()))

    async def let_go(self, _request: web.Request) -> web.Response:
        """Drop what is in memory only to be quick; everything is on disk."""
        await self._house.let_go()
        return json_answer(await self._house.status())

    async def drain(self, request: web.Request) -> web.Response:
        """Take no new turns, or take them again; those under way go on."""
        body = await request.read()
        wanted = decode_known(body, DrainBody) if body else DrainBody()
        self._house.drain(draining=wanted.draining)
        return json_answer(Readiness(self._house.ready()))
