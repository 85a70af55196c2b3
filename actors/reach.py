"""What can be asked of a house wherever it stands: in this process or far away."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Protocol

from greenroom.actors.house_records import ModelCard, Status
from greenroom.actors.scene_messages import SceneEvent, SceneInfo, Tell
from greenroom.runtime.agent_records import (
    AgentInfo,
    Forgotten,
    Heard,
    HearRequest,
    LogEntry,
    Probe,
    SpawnRequest,
)
from greenroom.runtime.ballot import Tally
from greenroom.runtime.channel import Channel
from greenroom.runtime.records import TurnEvent, TurnRequest
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
    """The part of a ``House`` that works from afar, too: what Python's door asks for.

    ``namespace`` is the one that the caller's agents live in. Far away that is for the server to
    say, and what stands here is not looked at.

    ``open_turn`` raises ``InvalidRequest``, ``NotFound``, ``Conflict``, ``MailboxFull`` or
    ``Unavailable`` before any work; the first event of a good turn is ``TurnStarted``, and
    cancelling the channel cancels the work behind it. From afar a refusal comes out of the channel.

    ``hear`` tells an agent something without asking for an answer, and returns before it is heard:
    it raises ``InvalidRequest``, ``MailboxFull`` or ``Unavailable``. ``heard`` says how far the
    agent has got; with ``settled`` it waits until all of it is durable, and raises what prevents
    that. ``status`` raises ``Unavailable`` while the stage cannot answer.

    What can be done with an agent's memory raises ``NotFound`` (param "agent") for one that is not
    there. ``spawn`` finds or makes one, and raises ``Conflict`` where it exists with another system
    prompt, model or ``share``. ``fork`` gives a new agent the memory of another, now or as it was
    ``at`` a segment of its chain, and copies none of it; ``Conflict`` where the name is taken.
    ``rollback`` takes an agent back ``to`` a segment. Both wait for the turns that came before.
    Segments are named by id or by a beginning of it that only one has. ``log`` is the chain, oldest
    first. What is pinned (by default where the agent stands) is not evicted or collected: ``pin``
    and ``unpin`` give the segment's id. ``probe`` says what a turn would find, and runs nothing.
    ``forget`` erases the agent and all that nobody else needs.

    ``export`` gives the agent and its memory as one file, which ``import_agent`` takes here or in
    another home, under the agent's own name if ``name`` is None. It raises ``Conflict`` for another
    model's memory and for a name that is taken, ``InvalidRequest`` for a file that is damaged or
    from a later greenroom.
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
