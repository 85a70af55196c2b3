"""The WebSocket door: one agent at ``/v1/agents/{name}/stream``, any number at ``/v1/stream``."""

import asyncio

from aiohttp import web

from greenroom.actors.client_frames import FrameReader
from greenroom.actors.frames import SUBPROTOCOL
from greenroom.actors.frames_schema import frames_schema
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import named
from greenroom.actors.limits import Turnstile
from greenroom.actors.recording import Recordings
from greenroom.actors.request_id import REQUEST_ID
from greenroom.actors.session import Session

HEARTBEAT_S = 20.0


class SocketDoor:
    """The handlers that open sessions in front of one house, and drain them at the end."""

    def __init__(self, house: House, open_sockets: Turnstile, turns: Turnstile) -> None:
        self._house = house
        self._open = open_sockets
        self._sessions: set[Session] = set()
        self._recordings = Recordings(house, turns, house.settings.server.resume_s)

    async def one(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade and serve one agent. Raises ``InvalidRequest`` for an illegal name, before."""
        return await self._serve(request, named(request.match_info["name"], "name"))

    async def many(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade and serve the agents that the frames name."""
        return await self._serve(request, None)

    async def schema(self, _request: web.Request) -> web.Response:
        """The frames as a JSON schema."""
        return web.Response(body=frames_schema(), content_type="application/schema+json")

    async def drain(self, limit_s: float) -> None:
        """Close every session once its running turns have ended, or after ``limit_s`` seconds."""
        await asyncio.gather(*(session.drain(limit_s) for session in self._sessions))
        await self._recordings.close()

    async def _serve(self, request: web.Request, agent: str | None) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            protocols=(SUBPROTOCOL,),
            # Token frames are tiny: compressing them costs more than it saves.
            compress=False,
            max_msg_size=self._house.settings.server.max_body_mb << 20,
        )
        namespace = request[NAMESPACE]
        reader = FrameReader(agent=agent, namespace=namespace)
        session = Session(
            self._house, socket, reader, self._recordings, namespace, request[REQUEST_ID]
        )
        # Counted before the handshake has been answered, so that a burst finds the bound too.
        with self._open.passed():
            self._sessions.add(session)
            try:
                await socket.prepare(request)
                await session.run()
            finally:
                self._sessions.discard(session)
        return socket
