"""``GET /v1/scenes/{name}/stream``: a scene watched, and performed, over a WebSocket.

Everything that happens comes as frames, whoever performs the scene: every member's tokens, lines,
ballots. What this socket performs stops when it closes. docs/scenes.md has the frames.
"""

import asyncio

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from greenroom.actors.fields import at_least, decode
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.limits import Turnstile
from greenroom.actors.problems import ErrorBody, problem
from greenroom.actors.request_id import REQUEST_ID
from greenroom.actors.scene_messages import SceneEvent, SceneInfo, Tell
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import Conflict, GreenroomError, InvalidRequest
from greenroom.runtime.scenario import Vote

HEARTBEAT_S = 20.0


class _Frame(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    pass


class RunFrame(_Frame, frozen=True, tag="run"):
    """Perform the scene for ``turns`` turns, or to its end."""

    turns: int | None = None
    speaker: str | None = None


class TellFrame(_Frame, frozen=True, tag="tell"):
    """Say something as narrator or guest, to some members only if ``to``."""

    text: str
    speaker: str | None = None
    to: tuple[str, ...] | None = None


class VoteFrame(_Frame, frozen=True, tag="vote"):
    """Hold a vote."""

    vote: Vote


class StopFrame(_Frame, frozen=True, tag="stop"):
    """Stop what this socket performs."""


ClientFrame = RunFrame | TellFrame | VoteFrame | StopFrame


class _Kind(msgspec.Struct):
    type: str = ""


def read_frame(data: str) -> ClientFrame:
    """The client's frame. Raises InvalidRequest that names the field at fault."""
    match decode(data, _Kind).type:
        case "run":
            return decode(data, RunFrame)
        case "tell":
            return decode(data, TellFrame)
        case "vote":
            return decode(data, VoteFrame)
        case "stop":
            return decode(data, StopFrame)
        case other:
            raise InvalidRequest(
                f"type must be run, tell, vote or stop, not {other!r}.",
                param="type",
                code="invalid_value",
            )


class RestFrame(msgspec.Struct, frozen=True, tag_field="type", tag="rest"):
    """What this socket performed has come to rest; ``scene`` is where it stands."""

    scene: SceneInfo


class ErrorFrame(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A frame, or what it asked for, went wrong; the socket stays open.

    ``status`` is what the answer to a request would have had, ``retry_after_s`` its Retry-After.
    """

    error: ErrorBody
    status: int
    retry_after_s: int | None


class SceneSession:
    """One open socket."""

    def __init__(
        self, house: House, socket: web.WebSocketResponse, scene: tuple[str, str], request: str
    ) -> None:
        self._house = house
        self._socket = socket
        self._scene = scene
        self._request = request
        self._performing: Channel[SceneEvent] | None = None

    async def run(self, watched: Channel[SceneEvent]) -> None:
        """Serve the socket until either side closes it."""
        try:
            async with watched, asyncio.TaskGroup() as group:
                shown = group.create_task(self._show(watched))
                async for message in self._socket:
                    await self._take(message.type, message.data, group)
                shown.cancel()
                self._stop()
        except* ConnectionResetError:
            pass  # the client has left while something was being sent to it

    async def close(self) -> None:
        """The server stops."""
        self._stop()
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is stopping")

    async def _show(self, watched: Channel[SceneEvent]) -> None:
        try:
            async for event in watched:
                await self._socket.send_str(msgspec.json.encode(event).decode())
        except GreenroomError as error:  # too far behind
            await self._fail(error)
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the scene has gone")

    async def _take(self, kind: WSMsgType, data: str, group: asyncio.TaskGroup) -> None:
        try:
            if kind is not WSMsgType.TEXT:
                raise InvalidRequest("Frames are JSON text, not binary.", code="invalid_frame")
            frame = read_frame(data)
            scenes = self._house.scenes
            match frame:
                case RunFrame(turns, speaker):
                    at_least("turns", turns, 1)
                    self._check_free()
                    channel = await scenes.perform(*self._scene, turns, speaker)
                    self._see_through(channel, group)
                case VoteFrame(vote):
                    self._check_free()
                    self._see_through(await scenes.vote(*self._scene, vote), group)
                case TellFrame(text, speaker, to):
                    await scenes.tell(*self._scene, Tell(text, speaker, to))
                case StopFrame():
                    self._stop()
        except GreenroomError as error:
            await self._fail(error)

    def _check_free(self) -> None:
        if self._performing is not None:
            raise Conflict("this socket performs the scene already", code="performing")

    def _see_through(self, channel: Channel[SceneEvent], group: asyncio.TaskGroup) -> None:
        self._performing = channel
        group.create_task(self._perform(channel))

    async def _perform(self, channel: Channel[SceneEvent]) -> None:
        """Its events are watched already: here only its end counts."""
        try:
            async with channel:
                async for _ in channel:
                    pass
        except ConnectionResetError:
            raise
        except Exception as error:  # the socket's edge: told to the client, and the socket goes on
            await self._fail(error)
        finally:
            self._performing = None
        if not self._socket.closed:
            await self._send(RestFrame(await self._house.scenes.info(*self._scene)))

    def _stop(self) -> None:
        if self._performing is not None:
            self._performing.cancel()

    async def _fail(self, error: Exception) -> None:
        told = problem(error, self._request)
        await self._send(ErrorFrame(told.error, told.status, told.retry_after_s))

    async def _send(self, frame: RestFrame | ErrorFrame) -> None:
        await self._socket.send_str(msgspec.json.encode(frame).decode())


class SceneSocketDoor:
    """The handler that opens sessions in front of one house, and closes them at the end."""

    def __init__(self, house: House, open_sockets: Turnstile) -> None:
        self._house = house
        self._open = open_sockets
        self._sessions: set[SceneSession] = set()

    async def get(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade and serve. Raises NotFound before the upgrade."""
        with self._open.passed():
            return await self._serve(request)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        scene = (request[NAMESPACE], request.match_info["name"])
        watched = await self._house.scenes.watch(*scene)
        most = self._house.settings.server.max_body_mb << 20
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, compress=False, max_msg_size=most)
        async with watched:
            await socket.prepare(request)
            session = SceneSession(self._house, socket, scene, request[REQUEST_ID])
            self._sessions.add(session)
            try:
                await session.run(watched)
            finally:
                self._sessions.discard(session)
        return socket

    async def drain(self) -> None:
        """Close every session; scenes go on where they were when they are performed again."""
        await asyncio.gather(*(session.close() for session in tuple(self._sessions)))
