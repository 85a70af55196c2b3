"""A house of agents without a model, and scenes in it: for virtual time and crashes at will.

What agents remember and what the ledger holds outlives a crash; everything else does not. Every
answer is a text of its own, so that one which is generated twice is noticed.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from greenroom.actors.scene_messages import SceneEvent
from greenroom.actors.scribe import Scribe
from greenroom.actors.theatre import Scenes, Theatre
from greenroom.actors.turn import unknown
from greenroom.runtime.agent_records import AgentInfo, Forgotten, HearRequest, SpawnRequest
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import (
    ActorFailed,
    Conflict,
    GreenroomError,
    InvalidRequest,
    MailboxFull,
    NotFound,
    StageFailed,
)
from greenroom.runtime.ledger import SceneRow
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.records import (
    ChatMessage,
    TextDelta,
    TurnDone,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    Usage,
)
from greenroom.runtime.scenario import Scenario
from greenroom.runtime.system import System
from greenroom.runtime.transcript import Entry
from tests.house import DONE, SmallHouse

FATES = ("crash", "crash_late", "gpu", "full", "refused")


class World:
    """What is on disk: agents' memories by name, scenes and their entries."""

    def __init__(self) -> None:
        self.memories: dict[str, list[ChatMessage]] = {}
        self.rows: dict[tuple[str, str], SceneRow] = {}
        self.entries: dict[str, list[Entry]] = {}
        self.prompts: list[tuple[str, tuple[ChatMessage, ...]]] = []
        self.num_answers = 0
        self.forgotten: list[str] = []


class PaperScribe(Scribe):
    """The ledger's interface over a World; every write takes a little while."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.dead = False

    async def create(self, namespace: str, scenario: Scenario, uid: str) -> SceneRow:
        row = self._world.rows.get((namespace, scenario.name))
        if row is None:
            row = SceneRow(namespace, scenario.name, uid, scenario, 1.0)
            self._world.rows[namespace, scenario.name] = row
            self._world.entries[uid] = []
        elif row.scenario != scenario:
            raise Conflict("another")
        return row

    async def find(self, namespace: str, name: str) -> SceneRow | None:
        return self._world.rows.get((namespace, name))

    async def list(self, namespace: str) -> tuple[SceneRow, ...]:
        return tuple(r for (owner, _), r in sorted(self._world.rows.items()) if owner == namespace)

    async def append(self, uid: str, entries: Sequence[Entry]) -> None:
        await asyncio.sleep(0.01)
        if self.dead:
            await asyncio.get_running_loop().create_future()
        have = self._world.entries[uid]
        assert [e.number for e in entries] == list(range(len(have), len(have) + len(entries)))
        have += entries
        await asyncio.sleep(0.01)

    async def read(self, uid: str) -> tuple[Entry, ...]:
        return tuple(self._world.entries[uid])

    async def delete(self, uid: str) -> None:
        self._world.rows = {k: r for k, r in self._world.rows.items() if r.uid != uid}
        del self._world.entries[uid]


class Repertory(SmallHouse):
    """Agents that answer after a while with what ``answer`` gives, unless a fate befalls them.

    ``fates`` are taken one for each attempt at a turn; None and no more of them mean that it ends
    well. "crash" loses what was only heard, "crash_late" comes when the answer is remembered.
    """

    def __init__(
        self,
        world: World,
        answer: Callable[[str, Sequence[ChatMessage], int], str],
        fates: Sequence[str | None] = (),
        pace: float = 1.0,
    ) -> None:
        super().__init__()
        self.world = world
        self.answer = answer
        self.fates = list(fates)
        self.pace = pace  # of everything, in a time that is not virtual
        self.dead = False
        self.playbill: Scenes | None = None
        self.talking = 0
        self.most_talking = 0
        self._pending: dict[str, list[ChatMessage]] = {}
        self._busy: dict[str, asyncio.Event] = {}

    @property
    def scenes(self) -> Scenes:
        assert self.playbill is not None
        return self.playbill

    async def spawn(self, request: SpawnRequest) -> AgentInfo:
        self.world.memories.setdefault(request.name, [])
        return await super().spawn(request)

    async def forget(self, namespace: str, agent: str) -> Forgotten:
        if self.world.memories.pop(agent, None) is None:
            raise NotFound(agent)
        self.world.forgotten.append(agent)
        return Forgotten(1, 1)

    async def hear(self, request: HearRequest) -> None:
        message = ChatMessage(
            request.role, request.content, request.name, heard=True, key=request.key
        )
        pending = self._pending.setdefault(request.agent, [])
        pending += unknown([message], pending)
        task = asyncio.ensure_future(self._take_in(request.agent))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None:
        pass

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        self.requests.append(request)
        reply: Channel[TurnEvent] = Channel(64)
        task = asyncio.ensure_future(self._take(request, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        reply.on_cancel(task.cancel)
        return reply

    async def _take_in(self, agent: str) -> None:
        await asyncio.sleep(0.5 * self.pace)
        pending = self._pending.get(agent)
        if pending and not self.dead and agent not in self._busy:
            memory = self.world.memories[agent]
            memory += unknown(pending, memory)
            pending.clear()

    async def _take(self, request: TurnRequest, reply: Channel[TurnEvent]) -> None:
        agent = request.agent or ""
        while agent in self._busy:
            await self._busy[agent].wait()
        self._busy[agent] = asyncio.Event()
        try:
            done = await self._answer(agent, request, reply)
            await reply.send(done)
            reply.close()
        except GreenroomError as error:
            reply.fail(error)
        finally:
            self._busy.pop(agent).set()

    async def _answer(
        self, agent: str, request: TurnRequest, reply: Channel[TurnEvent]
    ) -> TurnDone:
        memory = self.world.memories.setdefault(agent, [])
        fate = self.fates.pop(0) if self.fates else None
        if fate == "full":
            raise MailboxFull(agent, 64)
        for message in memory:
            if message.key == request.key and message.role == "assistant":
                return await self._say(agent, message.content, reply)
        if not request.messages:
            raise NotFound("nothing was answered under this key")
        if fate == "bound":
            raise InvalidRequest("no grammar here", param="choice")
        if fate == "refused":
            raise InvalidRequest("too long", code="context_length_exceeded")
        brought = {m.key for m in request.messages if m.key}
        pending = [m for m in self._pending.get(agent, ()) if m.key not in brought]
        new = unknown([*pending, *request.messages], memory)
        prompt = (*memory, *new)
        self.world.prompts.append((agent, prompt))
        self.talking += 1
        self.most_talking = max(self.most_talking, self.talking)
        try:
            await asyncio.sleep(self.pace * (1.0 + len(new) / 8))
        finally:
            self.talking -= 1
        if fate == "gpu":
            raise StageFailed("the GPU actor has failed")
        if fate == "crash":
            self._pending.pop(agent, None)
            raise ActorFailed(agent, "BoomError")
        if self.dead:
            await asyncio.get_running_loop().create_future()
        self.world.num_answers += 1
        text = self.answer(agent, prompt, self.world.num_answers)
        memory += [*new, ChatMessage("assistant", text, key=request.key)]
        self._pending.pop(agent, None)
        if fate == "crash_late":
            raise ActorFailed(agent, "BoomError")
        return await self._say(agent, text, reply)

    async def _say(self, agent: str, text: str, reply: Channel[TurnEvent]) -> TurnDone:
        await reply.send(TurnStarted(agent, 9, 4))
        for word in text.split(" "):
            await reply.send(TextDelta(word + " ", (1,)))
            await asyncio.sleep(0.05 * self.pace)
        return msgspec.structs.replace(DONE, agent=agent, text=text, usage=Usage(9, 3, 4))


class Evening:
    """The actors of one process, in a World: scenes in a repertory house."""

    def __init__(self, house: Repertory) -> None:
        self.house = house
        self.scribe = PaperScribe(house.world)
        self.system = System(seed=1)
        theatre = self.system.spawn(
            "theatre", lambda: Theatre(self.scribe, house, MailboxSpec(64), 900.0)
        )
        self.scenes = house.playbill = Scenes(theatre, self.scribe, 256)

    def die(self) -> None:
        """From here on nothing reaches the disk."""
        self.house.dead = self.scribe.dead = True


async def all_of(channel: Channel[SceneEvent]) -> list[SceneEvent]:
    """The events to the end. Raises what the channel fails with."""
    async with channel:
        return [event async for event in channel]
