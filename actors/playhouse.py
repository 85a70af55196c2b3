"""The house behind every door: one loaded model with its agents."""

import asyncio
import time

from greenroom.actors.agent_messages import AgentKey, Attend, Hear, Overhear, Turn
from greenroom.actors.delivery import deliver
from greenroom.actors.director_messages import Wake
from greenroom.actors.gpu_messages import Count
from greenroom.actors.house_records import ModelCard, Repertoire, Status
from greenroom.actors.keeper_messages import Weigh
from greenroom.actors.production import Production
from greenroom.actors.stagehand import Stagehand
from greenroom.actors.store_messages import ListAgents, Measure
from greenroom.actors.theatre import Scenes
from greenroom.actors.verbs import Verbs
from greenroom.runtime.agent_records import AgentInfo, Heard, HearRequest, SpawnRequest
from greenroom.runtime.catalog import check_requested
from greenroom.runtime.channel import Channel
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.errors import ActorStopped, InvalidRequest, Unavailable
from greenroom.runtime.namespace import derive_namespace
from greenroom.runtime.records import ChatMessage, TurnEvent, TurnRequest
from greenroom.runtime.settings import Settings
from greenroom.runtime.system import System

STATUS_S = 10.0
"""How long a look inside waits: the stage answers between two steps, unless it is loading."""


class Playhouse(Verbs):
    """One loaded model with its agents: the ``House`` behind every door.

    ``namespace`` is that of whoever runs it: the one that ``server.api_key`` opens over HTTP.
    """

    def __init__(self, settings: Settings, hand: Stagehand, system: System, scenes: Scenes) -> None:
        self.settings = settings
        self._hand = hand
        self._adopt(hand.production)
        self.system = system
        self.scenes = scenes
        self.namespace = derive_namespace(settings.server.api_key)
        self._draining = False

    def ready(self) -> bool:
        """Whether turns are taken."""
        return self._hand.plays and not self._draining

    @property
    def loaded(self) -> bool:
        """Whether a model is, and stays so."""
        return self._hand.plays

    @property
    def failure(self) -> "asyncio.Future[BaseException]":
        """Done when something failed that no supervisor could help with."""
        return self.system.failure

    def drain(self, *, draining: bool = True) -> None:
        """Take no new turns, or take them again; those under way go on."""
        self._draining = draining

    async def repertoire(self) -> tuple[Repertoire, ...]:
        """What could be served."""
        return await self._hand.repertoire()

    async def swap(self, model: str) -> ModelCard:
        """Serve another model; see ``House``."""
        try:
            await self._hand.swap(model)
        finally:
            # Also when it has gone wrong: then the one before was put up again.
            if self._hand.production is not self._production:
                self._adopt(self._hand.production)
        return self.model

    async def offload(self) -> None:
        """Serve none; see ``House``."""
        await self._hand.offload()

    async def let_go(self) -> None:
        """Drop what is in memory only to be quick; see ``House``."""
        await self._hand.let_go()

    def resolve_model(self, name: str | None) -> str:
        """The served model's catalog name. Raises NotFound where ``name`` means another."""
        check_requested(self._entry, name)
        return self._entry.name

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        """Hand a turn to its agent; see ``House``."""
        try:
            return await self._open_turn(request)
        except Unavailable as error:
            self.meter.rejected(error)
            raise

    async def _open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        self._check()
        request = self._steady(request)
        self._check_size(request)
        key = await self._recognition.settled(request)
        reply: Channel[TurnEvent] = Channel(self.settings.actors.channel_capacity)
        # Whoever gave no name and never comes to an answer leaves no trace.
        turn = Turn(request, reply, time.perf_counter())
        await deliver(self._director, key, turn, enrol=request.agent is not None)
        return reply

    def _check_size(self, request: TurnRequest) -> None:
        facts = self._company.facts
        if request.prompt is None:
            facts.text.check_size(request.messages, facts.context_window)
        elif isinstance(request.prompt, str):
            said = ChatMessage("user", request.prompt)
            facts.text.check_size([said], facts.context_window, param="prompt")

    async def hear(self, request: HearRequest) -> None:
        """Tell an agent something; see ``House``."""
        self._check()
        if not request.content.strip():
            raise InvalidRequest("there is nothing to hear", param="content", code="empty_string")
        message = ChatMessage(
            request.role, request.content, request.name, heard=True, key=request.key
        )
        self._company.facts.text.check_size([message], self._company.facts.context_window)
        # What it commits makes it known: who tells a thousand agents does not wait for the disk.
        key = AgentKey(request.namespace, request.agent)
        await deliver(self._director, key, Hear(message), enrol=False)

    async def heard(self, namespace: str, agent: str, *, settled: bool = True) -> Heard:
        """How far an agent has got with what it heard; see ``House``."""
        async with Channel[Heard](1) as reply:
            attend = Attend(reply, settled)
            await deliver(self._director, AgentKey(namespace, agent), attend, enrol=True)
            async for heard in reply:
                return heard
        raise ActorStopped(agent)

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None:
        """Have an agent get ready for what is being said; see ``House``."""
        self._check()
        ref = await self._director.ask(Wake(AgentKey(namespace, agent), enrol=False))
        if message is None:
            ref.tell(Overhear(None))
        else:
            await ref.ask(Overhear(message))

    async def enrol(self, name: str, system: str | None) -> None:
        """Make the agent unless it is there. Raises Conflict for another system prompt."""
        await self.spawn(SpawnRequest(namespace=self.namespace, name=name, system=system))

    async def agents(self, namespace: str) -> list[AgentInfo]:
        """Every agent of the namespace, by name."""
        return list(await self._company.store.ask(ListAgents(namespace)))

    async def status(self) -> Status:
        """A look inside, for operators."""
        template = self._company.facts.text.report.lines()
        counters = await self._company.gpu.ask(Count(), timeout=STATUS_S)
        hot = await self._company.keeper.ask(Weigh(), timeout=STATUS_S)
        stored = await self._company.store.ask(Measure(), timeout=STATUS_S)
        return Status(counters, self.system.inspect(), hot, stored, template)

    async def counters(self) -> StageCounters:
        """What the stage has done so far."""
        return await self._company.gpu.ask(Count())

    def _check(self) -> None:
        self._hand.check()
        if self._draining:
            raise Unavailable("the server is shutting down", retry_after_s=5.0)

    def _adopt(self, production: Production) -> None:
        """From now on everything goes to this production's actors."""
        super().__init__(production.company, production.director)
        self._production = production
        entry, facts = production.play.entry, production.company.facts
        self._entry = entry
        self.meter = production.company.meter
        self.model = ModelCard(
            entry.name,
            entry.hub_id,
            facts.context_window,
            int(time.time()),
            f"fp_{facts.fingerprint[:12]}",
        )
