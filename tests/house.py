"""A house of one room for testing the doors: real channels and a real server, no model."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.resources import files
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
import uvloop

from greenroom.actors.house_records import ModelCard, Repertoire, Status
from greenroom.actors.http import serve_http
from greenroom.actors.keeper_messages import Held
from greenroom.actors.meter import Meter
from greenroom.actors.store_messages import Stored
from greenroom.actors.theatre import Scenes
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
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.errors import NotFound
from greenroom.runtime.inspect import SystemInfo
from greenroom.runtime.records import (
    ChatMessage,
    TextDelta,
    Timings,
    TurnDone,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    Usage,
)
from greenroom.runtime.settings import Settings

Reply = Channel[TurnEvent]
Told = tuple[int, dict[str, Any]]
Play = Callable[[TurnRequest, Reply], Awaitable[None]]

WORDS = ("The capital", " of France", " is", "", " Paris.")
STARTED = TurnStarted("alice", 21, 5)
DONE = TurnDone(
    agent="alice",
    text="".join(WORDS),
    finish_reason="stop",
    usage=Usage(21, 7, 5),
    timings=Timings(1.0, 2.0, 3.0, 4.0, 5.0),
    head="0badc0de",
)


async def answer(request: TurnRequest, reply: Reply) -> None:
    """Say that it is Paris, and end."""
    await reply.send(STARTED)
    for n, word in enumerate(WORDS):
        await reply.send(TextDelta(word, (n,)))
    await reply.send(DONE)


async def hang(request: TurnRequest, reply: Reply) -> None:
    """Take the turn and never come to its first event: a long prefill."""
    await asyncio.get_running_loop().create_future()


async def talk(request: TurnRequest, reply: Reply) -> None:
    """Talk for ever, as fast as the reader reads."""
    await reply.send(STARTED)
    while True:
        await reply.send(TextDelta("bla ", (7,)))


def settings(**server: object) -> Settings:
    """The default settings, with changes in the section ``server``."""
    text = files("greenroom.config").joinpath("default.toml").read_text()
    given = msgspec.toml.decode(text, type=Settings)
    changed: Any = msgspec.structs.replace(given.server, **server)
    return msgspec.structs.replace(given, server=changed)


class SmallHouse:
    """Plays ``play`` for each turn; keeps the requests; ``left`` counts readers that went away."""

    namespace = ""

    def __init__(self, play: Play = answer, **server: object) -> None:
        self.settings = settings(**server)
        self.model = ModelCard("smol", "org/Smol", 2048, 1_700_000_000)
        self.play = play
        self.meter = Meter()
        self.refusal: Exception | None = None
        self.status_refusal: Exception | None = None
        self.requests: list[TurnRequest] = []
        self.told: list[HearRequest] = []
        self.spawned: list[SpawnRequest] = []
        self.imported = b""
        self.namespaces: list[str] = []
        self.opened = asyncio.Event()
        self.left = asyncio.Event()
        self.is_ready = True
        self.is_loaded = True
        self.let_go_of = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def scenes(self) -> Scenes:
        raise NotFound("there are no scenes here", param="scene")

    async def open_turn(self, request: TurnRequest) -> Reply:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append(request)
        reply: Reply = Channel(4)
        task = asyncio.create_task(self._run(request, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        reply.on_cancel(task.cancel)
        reply.on_cancel(self.left.set)
        self.opened.set()
        return reply

    async def hear(self, request: HearRequest) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.told.append(request)

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None:
        pass

    async def heard(self, namespace: str, agent: str, *, settled: bool = True) -> Heard:
        return Heard(0 if settled else len(self.told), "0badc0de")

    async def _run(self, request: TurnRequest, reply: Reply) -> None:
        try:
            await self.play(request, reply)
        except Exception as error:
            reply.fail(error)
        else:
            reply.close()

    async def status(self) -> Status:
        if self.status_refusal is not None:
            raise self.status_refusal
        return Status(
            StageCounters(jobs=3), SystemInfo([], 0, {"full": 2}), Held(1, 10, 4), Stored(1, 2, 30)
        )

    async def agents(self, namespace: str) -> list[AgentInfo]:
        self.namespaces.append(namespace)
        return [AgentInfo("alice", "Be brief.", "0badc0de", 28, 1.0, 2.0)]

    async def spawn(self, request: SpawnRequest) -> AgentInfo:
        self.spawned.append(request)
        return AgentInfo(request.name, request.system, None, 0, 1.0, 2.0)

    async def find(self, namespace: str, name: str) -> AgentInfo:
        if name != "alice":
            raise NotFound(f"there is no agent {name!r} here", param="agent", code="no_agent")
        return (await self.agents(namespace))[0]

    async def fork(self, namespace: str, agent: str, name: str, at: str | None = None) -> AgentInfo:
        return msgspec.structs.replace(await self.find(namespace, agent), name=name)

    async def rollback(self, namespace: str, agent: str, to: str) -> AgentInfo:
        return msgspec.structs.replace(await self.find(namespace, agent), head=to)

    async def log(self, namespace: str, agent: str) -> tuple[LogEntry, ...]:
        await self.find(namespace, agent)
        return (LogEntry("0badc0de", "generation", 7, 28, 4096, 1.0, False, 0),)

    async def pin(self, namespace: str, agent: str, segment: str | None = None) -> str:
        await self.find(namespace, agent)
        return segment or "0badc0de"

    async def unpin(self, namespace: str, agent: str, segment: str | None = None) -> str:
        return await self.pin(namespace, agent, segment)

    async def probe(self, request: TurnRequest) -> Probe:
        return Probe(request.agent, 21, 5)

    async def forget(self, namespace: str, agent: str) -> Forgotten:
        await self.find(namespace, agent)
        return Forgotten(1, 4096)

    async def export(self, namespace: str, agent: str) -> AsyncIterator[bytes]:
        await self.find(namespace, agent)
        yield b"alice, "
        yield b"packed"

    async def import_agent(
        self, namespace: str, name: str | None, chunks: AsyncIterable[bytes]
    ) -> AgentInfo:
        self.imported = b"".join([chunk async for chunk in chunks])
        return AgentInfo(name or "alice", "Be brief.", "0badc0de", 28, 1.0, 2.0)

    def resolve_model(self, name: str | None) -> str:
        if name in (None, "default", "smol", "org/Smol"):
            return "smol"
        raise NotFound(f"No model {name!r} here.", param="model", code="model_not_found")

    def ready(self) -> bool:
        return self.is_ready

    @property
    def loaded(self) -> bool:
        return self.is_loaded

    async def repertoire(self) -> tuple[Repertoire, ...]:
        return (Repertoire("smol", "Smol", "org/Smol", True),)

    async def swap(self, model: str) -> ModelCard:
        self.resolve_model(model)
        self.is_loaded = True
        return self.model

    async def offload(self) -> None:
        self.is_loaded = self.is_ready = False

    async def let_go(self) -> None:
        self.let_go_of += 1

    def drain(self, *, draining: bool = True) -> None:
        self.is_ready = not draining


async def tell(client: aiohttp.ClientSession, body: object, **headers: str) -> Told:
    """POST a chat request; a ``bytes`` body goes as it is. The status and the JSON answer."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.post("/v1/chat/completions", data=BytesIO(data), headers=named) as response:
        return response.status, await response.json()


@asynccontextmanager
async def visiting(house: SmallHouse, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A real server in front of ``house`` on a free port, and a client of it."""
    async with (
        serve_http(house, "127.0.0.1", 0) as url,
        aiohttp.ClientSession(url, headers=headers) as client,
    ):
        yield client


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario on the event loop that the server uses, for at most 20 s."""

    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario

    uvloop.run(limited())


def question(**more: object) -> dict[str, object]:
    """A plain chat request with more fields."""
    return {"messages": [{"role": "user", "content": "The capital of France?"}], **more}
