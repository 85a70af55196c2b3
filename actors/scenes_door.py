"""``/v1/scenes``: scenes over HTTP, performed as one JSON answer or as server-sent events."""

from unicodedata import normalize

import msgspec
from aiohttp import web

from greenroom.actors.answers import json_answer
from greenroom.actors.fields import at_least, decode
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.problems import Problem
from greenroom.actors.scene_messages import SceneEvent, Tell
from greenroom.actors.scene_socket import ErrorFrame
from greenroom.actors.sse import framed, streaming
from greenroom.runtime.channel import Channel
from greenroom.runtime.scenario import Scenario, Vote
from greenroom.runtime.transcript import Line, reaches


class RunRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``run``: for ``turns`` turns, or to the end; ``speaker`` out of turn."""

    turns: int | None = None
    speaker: str | None = None
    stream: bool = False


class TellRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``lines``: what a narrator or guest says, to some members only if ``to``."""

    text: str
    speaker: str | None = None
    to: tuple[str, ...] | None = None

    def told(self) -> Tell:
        """As a message."""
        return Tell(self.text, self.speaker, self.to)


class ScenesDoor:
    """The handlers for scenes in front of one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def list(self, request: web.Request) -> web.Response:
        """The caller's scenes."""
        return json_answer(
            {"object": "list", "data": await self._house.scenes.list(request[NAMESPACE])}
        )

    async def create(self, request: web.Request) -> web.Response:
        """Make the scene unless it is there as it is described."""
        scenario = decode(await request.read(), Scenario)
        info = await self._house.scenes.create(request[NAMESPACE], scenario)
        return json_answer(info, status=201)

    async def info(self, request: web.Request) -> web.Response:
        """Where the scene stands."""
        return json_answer(await self._house.scenes.info(*_scene(request)))

    async def delete(self, request: web.Request) -> web.Response:
        """Stop the scene and forget what was said in it."""
        await self._house.scenes.delete(*_scene(request))
        return web.Response(status=204)

    async def entries(self, request: web.Request) -> web.Response:
        """All that has happened."""
        entries = await self._house.scenes.entries(*_scene(request))
        return json_answer({"object": "list", "data": entries})

    async def transcript(self, request: web.Request) -> web.Response:
        """What has been said, or what of it the member ``heard_by`` has said or heard."""
        entries = await self._house.scenes.entries(*_scene(request))
        lines = [entry for entry in entries if isinstance(entry, Line)]
        name = request.query.get("heard_by")
        if name is not None:
            name = normalize("NFC", name)
            lines = [x for x in lines if x.speaker == name or reaches(x, name)]
        return json_answer({"object": "list", "data": lines})

    async def tell(self, request: web.Request) -> web.Response:
        """Say something to the members."""
        body = decode(await request.read(), TellRequest)
        return json_answer(await self._house.scenes.tell(*_scene(request), body.told()), status=201)

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Perform the scene. Leaving stops it."""
        body = decode(await request.read() or b"{}", RunRequest)
        at_least("turns", body.turns, 1)
        scenes = self._house.scenes
        channel = await scenes.perform(*_scene(request), body.turns, body.speaker)
        async with channel:
            if body.stream:
                return await self._stream(request, channel)
            lines = [event async for event in channel if isinstance(event, Line)]
        return json_answer({"lines": lines, "scene": await scenes.info(*_scene(request))})

    async def _stream(
        self, request: web.Request, channel: Channel[SceneEvent]
    ) -> web.StreamResponse:
        async with streaming(request, self._house.settings.server, _failed) as stream:
            async for event in channel:
                await stream.send(framed(msgspec.json.encode(event)))
            await stream.send(framed(b"[DONE]"))
        return stream.response

    async def vote(self, request: web.Request) -> web.Response:
        """Hold a vote and count it."""
        vote = decode(await request.read(), Vote)
        return json_answer(await self._house.scenes.tally(*_scene(request), vote))


def _scene(request: web.Request) -> tuple[str, str]:
    """Namespace and name."""
    return request[NAMESPACE], request.match_info["name"]


def _failed(told: Problem) -> bytes:
    """What stopped a scene whose events are on their way already."""
    frame = ErrorFrame(told.error, told.status, told.retry_after_s)
    return framed(msgspec.json.encode(frame))
