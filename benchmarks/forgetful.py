"""A scene's agents measured: as they are, and as a server would have them that keeps nothing.

Both perform the same scene through the same code and say the same words, so that what differs is
what their memory costs and saves.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from greenroom.actors.ongoing import opened
from greenroom.actors.players import Agency
from greenroom.actors.scribe import Scribe
from greenroom.actors.theatre import Scenes, Theatre
from greenroom.runtime.agent_records import AgentInfo, Forgotten, HearRequest, SpawnRequest
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.ledger import Ledger
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.records import ChatMessage, TurnDone, TurnEvent, TurnRequest
from greenroom.runtime.scenario import Scenario
from greenroom.runtime.system import System
from greenroom.runtime.transcript import Cue


class Performed(msgspec.Struct, frozen=True):
    """A scene that was performed: the end of each cue's turn, its phase, and the wall time."""

    turns: Mapping[int, TurnDone]
    phases: Mapping[int, int]
    wall_s: float


class Remembering:
    """Agents as they are; ``turns`` are the ends of their turns, by the number of the cue."""

    def __init__(self, house: Agency) -> None:
        self._house = house
        self._running: set[asyncio.Task[None]] = set()
        self.turns: dict[int, TurnDone] = {}

    async def spawn(self, request: SpawnRequest) -> AgentInfo:
        return await self._house.spawn(request)

    async def forget(self, namespace: str, agent: str) -> Forgotten:
        return await self._house.forget(namespace, agent)

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None:
        """What is still being said is not heard before it is said."""

    async def hear(self, request: HearRequest) -> None:
        await self._house.hear(request)

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        reply: Channel[TurnEvent] = Channel(256)
        task = asyncio.ensure_future(self._follow(request, reply))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        reply.on_cancel(task.cancel)
        return reply

    async def _follow(self, request: TurnRequest, reply: Channel[TurnEvent]) -> None:
        number = int(str(request.key).rpartition(".")[2])
        try:
            async with opened(self._house, await self.as_asked(request)) as turn:
                await reply.send(turn.started)
                async for event in turn:
                    if isinstance(event, TurnDone):
                        self.turns[number] = event
                        await reply.send(self.as_told(number, request, event))
                    else:
                        await reply.send(event)
            reply.close()
        except GreenroomError as error:
            reply.fail(error)

    async def as_asked(self, request: TurnRequest) -> TurnRequest:
        """The turn that is really taken."""
        return request

    def as_told(self, number: int, request: TurnRequest, done: TurnDone) -> TurnDone:
        """Its end, as the scene is told."""
        return done


class Forgetful(Remembering):
    """Agents that read everything from its beginning, each time, and keep nothing of it.

    Each turn is that of a new agent who shares nothing, gets the whole conversation, answers at
    most as many tokens as were answered in ``before``, and is taken to have said the same.
    """

    def __init__(self, house: Agency, before: Mapping[int, TurnDone]) -> None:
        super().__init__(house)
        self._before = before
        self._systems: dict[str, str | None] = {}
        self._known: dict[str, list[ChatMessage]] = {}

    async def spawn(self, request: SpawnRequest) -> AgentInfo:
        self._systems[request.name] = request.system
        self._known.setdefault(request.name, [])
        return AgentInfo(request.name, request.system, None, 0, 0.0, 0.0)

    async def forget(self, namespace: str, agent: str) -> Forgotten:
        self._known.pop(agent, None)
        return Forgotten(0, 0)

    async def hear(self, request: HearRequest) -> None:
        """What it hears it is told with its next turn."""

    async def as_asked(self, request: TurnRequest) -> TurnRequest:
        agent, number = str(request.agent), int(str(request.key).rpartition(".")[2])
        name = f"{agent}.{number}"
        system = self._systems[agent]
        await self._house.spawn(SpawnRequest(name=name, system=system, share="none"))
        self._known[agent] += request.messages
        return msgspec.structs.replace(
            request,
            agent=name,
            messages=tuple(self._known[agent]),
            max_tokens=self._before[number].usage.completion_tokens,
            stop=(),
        )

    def as_told(self, number: int, request: TurnRequest, done: TurnDone) -> TurnDone:
        said = self._before[number].text
        self._known[str(request.agent)].append(ChatMessage("assistant", said, key=request.key))
        return msgspec.structs.replace(done, text=said)


async def performed(folder: Path, scenario: Scenario, agents: Remembering) -> Performed:
    """Perform a scene with these agents, on a ledger of its own in ``folder``."""
    ledger = await asyncio.to_thread(Ledger, folder)
    scribe = Scribe(ledger)
    async with System() as system:
        theatre = system.spawn("theatre", lambda: Theatre(scribe, agents, MailboxSpec(64), 900.0))
        scenes = Scenes(theatre, scribe, 256)
        await scenes.create("", scenario)
        begun = time.perf_counter()
        async with await scenes.perform("", scenario.name) as events:
            async for _ in events:
                pass
        wall_s = time.perf_counter() - begun
        entries = await scenes.entries("", scenario.name)
    await scribe.close()
    await asyncio.to_thread(ledger.close)
    phases = {entry.number: entry.phase for entry in entries if isinstance(entry, Cue)}
    return Performed(agents.turns, phases, wall_s)
