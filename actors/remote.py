"""A house far away: a running server, reached over HTTP and WebSocket."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from greenroom.actors.frames import SUBPROTOCOL, ServerFrame
from greenroom.actors.house_records import ModelCard, Status
from greenroom.actors.remote_calls import answered, call, lost
from greenroom.actors.remote_errors import ServerLost
from greenroom.actors.remote_feeds import RemoteFeeds
from greenroom.actors.remote_frames import event_of, say_fields
from greenroom.actors.remote_scenes import RemoteScenes
from greenroom.runtime.agent_records import (
    AgentInfo,
    Forgotten,
    Heard,
    HearRequest,
    LogEntry,
    Probe,
    SpawnRequest,
)
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import GreenroomError, InvalidRequest
from greenroom.runtime.records import TurnDone, TurnEvent, TurnRequest

T = TypeVar("T")

CONNECT_S = 10.0
HEARTBEAT_S = 20.0
PAGE = 1000
READ_BYTES = 1 << 18


class _Page(msgspec.Struct):
    data: list[AgentInfo]
    has_more: bool = False


class _Log(msgspec.Struct):
    data: tuple[LogEntry, ...]


class _Pinned(msgspec.Struct):
    segment: str


class _Deleted(msgspec.Struct):
    erased: Forgotten


class _Details(msgspec.Struct):
    hf_id: str | None = None
    context_window: int = 0


class _Model(msgspec.Struct):
    id: str
    created: int = 0
    greenroom: _Details = msgspec.field(default_factory=_Details)


class _Models(msgspec.Struct):
    data: list[_Model]


class RemoteHouse:
    """The agents of one key of one server; see ``Reach``.

    Every turn has a socket of its own, whose closing cancels it, so a server that was away is found
    again by the next call. Every method raises ServerLost when the server cannot be reached,
    Unauthorized or Forbidden when it does not let the caller in, ServerFailed for its own defects.
    """

    namespace = ""  # the server's to say, by the key

    def __init__(
        self, client: aiohttp.ClientSession, model: ModelCard, admin_key: str | None
    ) -> None:
        self.model = model
        self._client = client
        self._admin_key = admin_key
        self._turns = RemoteFeeds()
        self.scenes = RemoteScenes(client)

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        """Ask the server for a turn. What it refuses comes out of the channel."""
        if request.agent is None:
            raise InvalidRequest("An agent must be named.", param="agent")
        say = {"type": "say", "progress": True, **say_fields(request)}
        return self._turns.open(partial(self._play, request.agent, say))

    async def hear(self, request: HearRequest) -> None:
        """Have an agent hear something."""
        body = {"content": request.content, "name": request.name, "key": request.key}
        await self._call("POST", _of(request.agent, "hear"), Heard, body)

    async def heard(self, namespace: str, agent: str, *, settled: bool = True) -> Heard:
        """How far it has got."""
        query = "settled=true" if settled else "settled=false"
        return await self._call("GET", f"{_of(agent, 'heard')}?{query}", Heard)

    async def agents(self, namespace: str) -> list[AgentInfo]:
        """All agents of the key, page by page."""
        agents: list[AgentInfo] = []
        while True:
            after = quote(agents[-1].name, safe="") if agents else ""
            page = await self._call("GET", f"/v1/agents?limit={PAGE}&after={after}", _Page)
            agents += page.data
            if not page.has_more:
                return agents

    async def spawn(self, request: SpawnRequest) -> AgentInfo:
        """Find or make an agent."""
        body = msgspec.structs.asdict(request)
        del body["namespace"]
        return await self._call("POST", "/v1/agents", AgentInfo, body)

    async def find(self, namespace: str, name: str) -> AgentInfo:
        """What is known of an agent."""
        return await self._call("GET", _of(name), AgentInfo)

    async def fork(self, namespace: str, agent: str, name: str, at: str | None = None) -> AgentInfo:
        """A new agent with the same memory."""
        return await self._call("POST", _of(agent, "fork"), AgentInfo, {"name": name, "at": at})

    async def rollback(self, namespace: str, agent: str, to: str) -> AgentInfo:
        """Take an agent back."""
        return await self._call("POST", _of(agent, "rollback"), AgentInfo, {"to": to})

    async def log(self, namespace: str, agent: str) -> tuple[LogEntry, ...]:
        """An agent's memory."""
        return (await self._call("GET", _of(agent, "log"), _Log)).data

    async def pin(self, namespace: str, agent: str, segment: str | None = None) -> str:
        """Keep a segment."""
        body = {"segment": segment}
        return (await self._call("POST", _of(agent, "pin"), _Pinned, body)).segment

    async def unpin(self, namespace: str, agent: str, segment: str | None = None) -> str:
        """Let go of a pin."""
        body = {"segment": segment}
        return (await self._call("POST", _of(agent, "unpin"), _Pinned, body)).segment

    async def probe(self, request: TurnRequest) -> Probe:
        """What a turn would find."""
        if request.agent is None:
            raise InvalidRequest("An agent must be named.", param="agent")
        return await self._call("POST", _of(request.agent, "probe"), Probe, say_fields(request))

    async def forget(self, namespace: str, agent: str) -> Forgotten:
        """Erase an agent."""
        return (await self._call("DELETE", _of(agent), _Deleted)).erased

    async def export(self, namespace: str, agent: str) -> AsyncIterator[bytes]:
        """An agent as a file."""
        async with self._answer("GET", _of(agent, "export")) as response:
            async for chunk in response.content.iter_chunked(READ_BYTES):
                yield chunk

    async def import_agent(
        self, namespace: str, name: str | None, chunks: AsyncIterable[bytes]
    ) -> AgentInfo:
        """Take a file in."""
        path = "/v1/agents/import" if name is None else _of(name, "import")
        async with self._answer("POST", path, data=chunks) as response:
            return msgspec.json.decode(await response.read(), type=AgentInfo)

    async def status(self) -> Status:
        """A look inside; needs the administrator's key."""
        headers = {} if self._admin_key is None else _bearer(self._admin_key)
        async with self._answer("GET", "/admin/status", headers=headers) as response:
            return msgspec.json.decode(await response.read(), type=Status)

    async def close(self) -> None:
        """Give up the turns that run, and scenes that are performed or watched."""
        await self.scenes.close()
        await self._turns.close()

    # --

    async def _call(self, method: str, path: str, answer: type[T], body: object = None) -> T:
        return await call(self._client, method, path, answer, body)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with answered(self._client, method, path, **options) as response:
            yield response

    async def _play(self, agent: str, say: dict[str, Any], channel: Channel[TurnEvent]) -> None:
        """Play one turn into its channel. Raises what it ends with."""
        try:
            async with self._client.ws_connect(
                _of(agent, "stream"),
                protocols=(SUBPROTOCOL,),
                heartbeat=HEARTBEAT_S,
                max_msg_size=0,
            ) as socket:
                await socket.send_str(msgspec.json.encode(say).decode())
                await self._read(socket, channel)
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refused(agent, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise lost(error) from error

    async def _read(
        self, socket: aiohttp.ClientWebSocketResponse, channel: Channel[TurnEvent]
    ) -> None:
        async for message in socket:
            try:
                frame = msgspec.json.decode(message.data, type=ServerFrame)
            except msgspec.ValidationError:  # a kind of frame that came after this client
                continue
            if (event := event_of(frame)) is not None:
                await channel.send(event)
                if isinstance(event, TurnDone):
                    return
        raise ServerLost("the server has gone in the middle of a turn")

    async def _refused(self, agent: str, error: aiohttp.WSServerHandshakeError) -> GreenroomError:
        """Why a socket was refused: its answer's body is lost, a plain request has the same."""
        try:
            async with self._answer("GET", _of(agent, "stream")):
                pass
        except GreenroomError as told:
            return told
        return ServerLost(f"the server refused a socket ({error.status})")


@asynccontextmanager
async def connect_house(
    url: str, *, key: str | None = None, admin_key: str | None = None
) -> AsyncIterator[RemoteHouse]:
    """A server's agents, while the block runs. Raises as ``RemoteHouse``'s methods do."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    headers = {} if key is None else _bearer(key)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as client:
        async with answered(client, "GET", "/v1/models") as response:
            model = msgspec.json.decode(await response.read(), type=_Models).data[0]
        details = model.greenroom
        card = ModelCard(model.id, details.hf_id, details.context_window, model.created)
        house = RemoteHouse(client, card, admin_key)
        try:
            yield house
        finally:
            await house.close()


def _of(agent: str, what: str = "") -> str:
    path = f"/v1/agents/{quote(agent, safe='')}"
    return f"{path}/{what}" if what else path


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
