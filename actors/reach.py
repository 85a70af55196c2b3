"""What Python's door asks of a house, wherever that house stands."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from greenroom.actors.house import ModelCard, Status
from greenroom.actors.scene_messages import SceneEvent, SceneInfo, Tell
from greenroom.runtime.ballot import Tally
from greenroom.runtime.channel import Channel
from greenroom.runtime.records import (
    AgentInfo,
    Forgotten,
    Heard,
    HearRequest,
    LogEntry,
    Probe,
    SpawnRequest,
    TurnEvent,
    TurnRequest,
)
from greenroom.runtime.scenario import Scenario, Vote
from greenroom.runtime.transcript import Entry, Line


class SceneReach(Protocol):
    """The part of ``Scenes`` that works from afar too: the methods are those of ``Scenes``."""

    async def create(self, namespace: str, scenario: Scenario) -> SceneInfo: ...

    async def list(self, namespace: str) -> list[SceneInfo]: ...

    async def info(self, namespace: str, name: str) -> SceneInfo: ...

    async def entries(self, namespace: str, name: str) -> tuple[Entry, ...]: ...

    async def delete(self, namespace: str, name: str) -> None: ...

    async def tell(self, namespace: str, name: str, told: Tell) -> Line: ...

    async def tally(self, namespace: str, name: str, vote: Vote) -> Tally: ...

    async def perform(
        self, namespace: str, name: str, turns: int | None = None, speaker: str | None = None
    ) -> Channel[SceneEvent]: ...

    async def watch(self, namespace: str, name: str) -> Channel[SceneEvent]: ...


class Reach(Protocol):
    """The part of a ``House`` that works from afar too: the methods are those of ``House``.

    ``namespace`` is the one that the caller's agents live in. Far away that is for the server to
    say, and what stands here is not looked at.
    """

    @property
    def namespace(self) -> str: ...

    @property
    def model(self) -> ModelCard: ...

    @property
    def scenes(self) -> SceneReach: ...

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]: ...

    async def hear(self, request: HearRequest) -> None: ...

    async def heard(self, namespace: str, agent: str, *, settled: bool = True) -> Heard: ...

    async def agents(self, namespace: str) -> list[AgentInfo]: ...

    async def spawn(self, request: SpawnRequest) -> AgentInfo: ...

    async def find(self, namespace: str, name: str) -> AgentInfo: ...

    async def fork(
        self, namespace: str, agent: str, name: str, at: str | None = None
    ) -> AgentInfo: ...

    async def rollback(self, namespace: str, agent: str, to: str) -> AgentInfo: ...

    async def log(self, namespace: str, agent: str) -> tuple[LogEntry, ...]: ...

    async def pin(self, namespace: str, agent: str, segment: str | None = None) -> str: ...

    async def unpin(self, namespace: str, agent: str, segment: str | None = None) -> str: ...

    async def probe(self, request: TurnRequest) -> Probe: ...

    async def forget(self, namespace: str, agent: str) -> Forgotten: ...

    def export(self, namespace: str, agent: str) -> AsyncIterator[bytes]: ...

    async def import_agent(
        self, namespace: str, name: str | None, chunks: AsyncIterable[bytes]
    ) -> AgentInfo: ...

    async def status(self) -> Status: ...
