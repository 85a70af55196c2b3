"""What the doors ask of the composition root: the house they stand in front of."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from greenroom.actors.keeper_messages import Held
from greenroom.actors.meter import Meter
from greenroom.actors.store_messages import Stored
from greenroom.runtime.channel import Channel
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.inspect import SystemInfo
from greenroom.runtime.records import (
    AgentInfo,
    ChatMessage,
    Forgotten,
    Heard,
    HearRequest,
    LogEntry,
    Probe,
    SpawnRequest,
    TurnEvent,
    TurnRequest,
)
from greenroom.runtime.settings import Settings

if TYPE_CHECKING:
    from greenroom.actors.theatre import Scenes


class ModelCard(msgspec.Struct, frozen=True):
    """The served model as callers see it.

    ``name`` is its catalog name, ``hf_id`` its Hugging Face id where it has one, ``context_window``
    in tokens, ``created`` in seconds since the epoch. ``fingerprint`` is OpenAI's: what with equal
    seeds gives equal answers.
    """

    name: str
    hf_id: str | None
    context_window: int
    created: int
    fingerprint: str = "fp_unknown"


class Repertoire(msgspec.Struct, frozen=True):
    """A model that could be served: its catalog name, and whether it is ``on_disk``."""

    name: str
    title: str
    hf_id: str | None
    on_disk: bool


class Status(msgspec.Struct, frozen=True):
    """What goes on inside: every actor, what the stage has done so far, what is kept where, and
    what was found out about the model's chat template when it was loaded, in words."""

    stage: StageCounters
    actors: SystemInfo
    hot: Held
    stored: Stored
    template: tuple[str, ...] = ()


class House(Protocol):
    """One loaded model with its agents; every door (HTTP, WebSocket) talks to this and no further.

    ``open_turn`` raises ``InvalidRequest``, ``NotFound``, ``Conflict``, ``MailboxFull`` or
    ``Unavailable`` before any work; the first event of a good turn is ``TurnStarted``, and
    cancelling the channel cancels the work behind it. ``resolve_model`` raises ``NotFound`` (param
    "model") for a name that is not served. ``ready`` is false until the model is loaded and once
    draining has begun.

    ``hear`` tells an agent something without asking for an answer, and returns before it is heard:
    it raises ``InvalidRequest``, ``MailboxFull`` or ``Unavailable``. ``heard`` says how far the
    agent has got; with ``settled`` it waits until all of it is durable, and raises what prevents
    that. ``overhear`` has an agent get ready for a message of which this much has been said so far,
    or for none any more; it only saves time, and what is said must be told in full in the end.
    ``status`` raises ``Unavailable`` while the stage cannot answer. ``meter`` measures turns.

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

    For operators: ``swap`` serves another model and ``offload`` none; turns may end first, within
    ``server.drain_s``, and until a model is ``loaded`` whoever comes gets ``Unavailable``. A model
    that cannot be served leaves the one before it: ``NotFound``, ``ModelUnavailable``. ``Conflict``
    while another change is under way. ``let_go`` drops what is in memory only to be quick.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def model(self) -> ModelCard: ...

    @property
    def meter(self) -> Meter: ...

    @property
    def scenes(self) -> "Scenes": ...

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]: ...

    async def hear(self, request: HearRequest) -> None: ...

    async def heard(self, namespace: str, agent: str, *, settled: bool = True) -> Heard: ...

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None: ...

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

    @property
    def loaded(self) -> bool: ...

    async def repertoire(self) -> tuple[Repertoire, ...]: ...

    async def swap(self, model: str) -> ModelCard: ...

    async def offload(self) -> None: ...

    async def let_go(self) -> None: ...

    def drain(self, *, draining: bool = True) -> None: ...

    def resolve_model(self, name: str | None) -> str: ...

    def ready(self) -> bool: ...
