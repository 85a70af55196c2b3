"""One open WebSocket: a reader that takes frames, and for each agent a lane of turns."""

import asyncio
from collections import deque

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from greenroom.actors.client_frames import BadFrame, Cancel, FrameReader, Ping, Resume, Say, Tell
from greenroom.actors.frames import Cancelled, HeardFrame, Pong, ServerFrame, failed
from greenroom.actors.house import House
from greenroom.actors.problems import problem
from greenroom.actors.recording import Recording, Recordings
from greenroom.runtime.errors import GreenroomError, InvalidRequest, MailboxFull, Unavailable

MAX_WAITING = 8
"""Turns that wait for one agent's running one."""
MAX_LANES = 64
"""Agents that speak at the same time over one socket."""


class _Again(msgspec.Struct, frozen=True):
    """A turn that is taken up again, from its frame number ``at``."""

    recording: Recording
    at: int


class _Lane:
    """One agent's turns on this socket: the running one, and those that wait for it."""

    def __init__(self) -> None:
        self.waiting: deque[Say | _Again] = deque()
        self.playing: Recording | None = None


class Session:
    """Serves one socket; ``reader`` reads its frames.

    A turn runs on its own and is only followed from here. When the socket is lost, one without an
    id is given up; one with an id is kept in ``recordings`` for whoever comes back.
    """

    def __init__(
        self,
        house: House,
        socket: web.WebSocketResponse,
        reader: FrameReader,
        recordings: Recordings,
        namespace: str,
        request_id: str,
    ) -> None:
        self._house = house
        self._socket = socket
        self._reader = reader
        self._recordings = recordings
        self._namespace = namespace
        self._request_id = request_id
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._group = asyncio.TaskGroup()

    async def run(self) -> None:
        """Serve the socket until either side closes it."""
        try:
            async with self._group:
                async for message in self._socket:
                    await self._take(message.type, message.data)
                for task in list(self._tasks):
                    task.cancel()
        except* ConnectionResetError:
            pass  # the client has left while something was being sent to it

    async def drain(self, limit_s: float) -> None:
        """Take nothing new, let running turns end within ``limit_s`` seconds, then close."""
        self._draining = True
        for lane in self._lanes.values():
            lane.waiting.clear()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=limit_s)
        await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is stopping")

    # -- the reader

    async def _take(self, kind: WSMsgType, data: str | bytes) -> None:
        frame_id = None
        try:
            if kind is not WSMsgType.TEXT:
                raise InvalidRequest("Frames are JSON text, not binary.", code="invalid_frame")
            frame = self._reader.read(data)
            frame_id = frame.id
            match frame:
                case Say(agent=agent):
                    self._queue(agent, frame)
                case Tell(agent=agent, told=told):
                    await self._house.hear(told)
                    await self._send(HeardFrame(frame_id, agent))
                case Cancel():
                    await self._cancel(frame)
                case Resume():
                    self._resume(frame)
                case Ping():
                    await self._send(Pong(frame_id))
        except BadFrame as error:
            await self._fail(error.frame_id, error)
        except GreenroomError as error:
            await self._fail(frame_id, error)

    def _queue(self, agent: str, item: Say | _Again) -> None:
        if self._draining:
            raise Unavailable("The server is stopping.")
        lane = self._lanes.get(agent)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                raise MailboxFull("the socket", MAX_LANES)
            self._lanes[agent] = lane = _Lane()
            lane.waiting.append(item)
            task = self._group.create_task(self._play(agent, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(lane.waiting) >= MAX_WAITING:
            raise MailboxFull(agent, MAX_WAITING)
        else:
            lane.waiting.append(item)

    def _resume(self, resume: Resume) -> None:
        recording = self._recordings.find(self._namespace, resume)
        self._queue(resume.agent, _Again(recording, recording.position(resume)))
        # From now on it is not given up for want of a reader.
        self._recordings.followed(recording)

    async def _cancel(self, cancel: Cancel) -> None:
        """Give up the turns of that id, or all of them; what has ended already stays as it is."""
        for agent, lane in list(self._lanes.items()):
            if cancel.agent not in (None, agent):
                continue
            if lane.playing is not None and cancel.id in (None, lane.playing.say.id):
                lane.playing.cancel()
            for item in list(lane.waiting):
                if isinstance(item, _Again):
                    if cancel.id in (None, item.recording.say.id):
                        item.recording.cancel()
                elif cancel.id in (None, item.id):
                    lane.waiting.remove(item)
                    await self._send(Cancelled(item.id, agent))

    # -- the player

    async def _play(self, agent: str, lane: _Lane) -> None:
        """Follow one turn after the other, until none waits."""
        try:
            while lane.waiting:
                item = lane.waiting.popleft()
                if isinstance(item, _Again):
                    await self._follow(lane, item.recording, item.at)
                elif (recording := await self._begin(item)) is not None:
                    await self._follow(lane, recording, 0)
        finally:
            del self._lanes[agent]
            for item in lane.waiting:
                if isinstance(item, _Again):
                    self._recordings.left(item.recording, for_good=False)

    async def _begin(self, say: Say) -> Recording | None:
        try:
            recording = self._recordings.begin(say, self._request_id)
        except GreenroomError as error:
            await self._fail(say.id, error, say.agent)
            return None
        self._recordings.followed(recording)
        return recording

    async def _follow(self, lane: _Lane, recording: Recording, at: int) -> None:
        lane.playing = recording
        try:
            async for frame in recording.follow(at):
                await self._send(frame)
            # The next turn waits until the agent is free.
            await recording.over()
        finally:
            lane.playing = None
            # Whoever says goodbye does not come back for the rest.
            for_good = self._socket.close_code == WSCloseCode.OK and not recording.ended
            self._recordings.left(recording, for_good=for_good)

    # --

    async def _fail(
        self, frame_id: str | None, error: GreenroomError, agent: str | None = None
    ) -> None:
        await self._send(failed(problem(error, self._request_id), frame_id, agent))

    async def _send(self, frame: ServerFrame) -> None:
        await self._socket.send_str(msgspec.json.encode(frame).decode())
