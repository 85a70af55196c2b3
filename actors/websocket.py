"""``GET /v1/agents/{name}/stream``: one agent spoken to over a WebSocket, turn after turn."""

import asyncio
from collections import deque

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from greenroom.actors.frames import (
    SUBPROTOCOL,
    BadFrame,
    CancelFrame,
    Cancelled,
    Done,
    Failed,
    Say,
    ServerFrame,
    Started,
    Token,
    read_frame,
)
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import named
from greenroom.actors.ongoing import opened
from greenroom.actors.problems import problem
from greenroom.actors.request_id import REQUEST_ID
from greenroom.runtime.errors import GreenroomError, InvalidRequest, MailboxFull, Unavailable
from greenroom.runtime.records import TextDelta, TurnDone

MAX_WAITING = 8
HEARTBEAT_S = 20.0


class _Playing:
    """The turn that runs now; ``ended`` once its last frame is on its way."""

    def __init__(self, say: Say, task: asyncio.Task[None]) -> None:
        self.say = say
        self.task = task
        self.ended = False


class Session:
    """One open socket: a reader that takes frames, and a player that runs one turn at a time."""

    def __init__(
        self, house: House, socket: web.WebSocketResponse, agent: str, namespace: str, request: str
    ) -> None:
        self._house = house
        self._socket = socket
        self._agent = agent
        self._namespace = namespace
        self._request = request
        self._waiting: deque[Say] = deque()
        self._arrived = asyncio.Event()
        self._playing: _Playing | None = None
        self._draining = False

    async def run(self) -> None:
        """Serve the socket until either side closes it; a turn still running is then cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                player = group.create_task(self._play(group))
                async for message in self._socket:
                    await self._take(message.type, message.data)
                player.cancel()
                if self._playing is not None:
                    self._playing.task.cancel()
        except* ConnectionResetError:
            pass  # the client has left while something was being sent to it

    async def drain(self, limit_s: float) -> None:
        """Take nothing new, let the running turn end within ``limit_s`` seconds, then close."""
        self._draining = True
        self._waiting.clear()
        if self._playing is not None:
            await asyncio.wait([self._playing.task], timeout=limit_s)
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is stopping")

    # -- the reader

    async def _take(self, kind: WSMsgType, data: str | bytes) -> None:
        frame_id = None
        try:
            if kind is not WSMsgType.TEXT:
                raise InvalidRequest("Frames are JSON text, not binary.", code="invalid_frame")
            frame = read_frame(data, agent=self._agent, namespace=self._namespace)
            frame_id = frame.id
            match frame:
                case Say():
                    self._queue(frame)
                case CancelFrame():
                    await self._cancel(frame_id)
        except BadFrame as error:
            await self._fail(error.frame_id, error)
        except GreenroomError as error:
            await self._fail(frame_id, error)

    def _queue(self, say: Say) -> None:
        if self._draining:
            raise Unavailable("The server is stopping.")
        if len(self._waiting) >= MAX_WAITING:
            raise MailboxFull(self._agent, MAX_WAITING)
        self._waiting.append(say)
        self._arrived.set()

    async def _cancel(self, frame_id: str | None) -> None:
        """Give up the turn of that id, or all of them; what has ended already stays as it is."""
        playing = self._playing
        if playing is not None and not playing.ended and frame_id in (None, playing.say.id):
            playing.task.cancel()
        given_up = [say for say in self._waiting if frame_id in (None, say.id)]
        for say in given_up:
            self._waiting.remove(say)
            await self._send(Cancelled(say.id))

    # -- the player

    async def _play(self, group: asyncio.TaskGroup) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            say = self._waiting.popleft()
            self._playing = playing = _Playing(say, group.create_task(self._turn(say)))
            await asyncio.wait([playing.task])
            self._playing = None
            if playing.task.cancelled() and not playing.ended:
                await self._send(Cancelled(say.id))

    async def _turn(self, say: Say) -> None:
        try:
            async with opened(self._house, say.turn) as turn:
                started = turn.started
                await self._send(
                    Started(say.id, started.agent, started.prompt_tokens, started.cached_tokens)
                )
                index = 0
                async for event in turn:
                    match event:
                        case TextDelta(text, tokens):
                            await self._send(Token(say.id, text, tokens, index))
                            index += len(tokens)
                        case TurnDone():
                            await self._end(_done(say.id, event))
        except ConnectionResetError:
            raise
        except Exception as error:  # the socket's edge: told to the client, and the socket goes on
            await self._end(Failed(say.id, problem(error, self._request).error))

    async def _end(self, frame: ServerFrame) -> None:
        """Send a turn's last frame; from here on it cannot be cancelled."""
        if self._playing is not None:
            self._playing.ended = True
        await self._send(frame)

    # --

    async def _fail(self, frame_id: str | None, error: GreenroomError) -> None:
        await self._send(Failed(frame_id, problem(error, self._request).error))

    async def _send(self, frame: ServerFrame) -> None:
        await self._socket.send_str(msgspec.json.encode(frame).decode())


class SocketDoor:
    """The handler that opens sessions in front of one house, and drains them at the end."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._sessions: set[Session] = set()

    async def get(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade and serve. Raises ``InvalidRequest`` for an illegal name, before the upgrade."""
        agent = named(request.match_info["name"], "name")
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            protocols=(SUBPROTOCOL,),
            # Token frames are tiny: compressing them costs more than it saves.
            compress=False,
            max_msg_size=self._house.settings.server.max_body_mb << 20,
        )
        await socket.prepare(request)
        session = Session(self._house, socket, agent, request[NAMESPACE], request[REQUEST_ID])
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
        return socket

    async def drain(self, limit_s: float) -> None:
        """Close every session once its running turn has ended, or after ``limit_s`` seconds."""
        await asyncio.gather(*(session.drain(limit_s) for session in self._sessions))


def _done(frame_id: str | None, done: TurnDone) -> Done:
    return Done(frame_id, done.text, done.finish_reason, done.usage, done.timings, done.head)
