"""The prompter of a scene: members follow what another says word by word, before it is a line.

It only saves time. Whoever speaks next then has the others' words on the stage already; what it is
told in its turn is the line as the transcript has it.
"""

import asyncio
import contextlib

from greenroom.actors.players import Agency, Players, agent_of
from greenroom.runtime.clock import Clock
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.plot import heard_so_far, listeners
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.scenario import Member
from greenroom.runtime.transcript import Cue, Transcript

EVERY_S = 0.2
"""Between two times that an agent is told: each renders its prompt anew, for a few words."""


class Prompter:
    """Tells the members who come next what is being said so far, each at its own pace."""

    def __init__(
        self, players: Players, transcript: Transcript, house: Agency, clock: Clock
    ) -> None:
        self._players = players
        self._transcript = transcript
        self._house = house
        self._clock = clock
        self._newest: dict[str, ChatMessage] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def prompt(self, cue: Cue, said: str) -> None:
        """Under a cue so much has been said."""
        message = heard_so_far(cue, said)
        if message is None:
            return
        for name in listeners(self._transcript, cue):
            member = self._transcript.scenario.member(name)
            agent = agent_of(member, cue.phase)
            if self._newest.get(agent) == message:
                continue
            self._newest[agent] = message
            # Done once it has told all there was; it is kept, since that has to be ended one day.
            if agent not in self._tasks or self._tasks[agent].done():
                telling = self._tell(member, cue.phase, agent)
                self._tasks[agent] = asyncio.ensure_future(telling)

    def leave(self, cue: Cue) -> None:
        """The member is asked now, and told everything with that."""
        self._drop(agent_of(self._transcript.scenario.member(cue.speaker), cue.phase))

    async def stop(self) -> None:
        """Nothing is being said any more: what agents were told for good they may remember."""
        agents = tuple(self._tasks)
        for agent in agents:
            self._drop(agent)
        for agent in agents:
            with contextlib.suppress(GreenroomError):
                await self._house.overhear(self._players.namespace, agent, None)

    def _drop(self, agent: str) -> None:
        self._newest.pop(agent, None)
        if (task := self._tasks.pop(agent, None)) is not None:
            task.cancel()

    async def _tell(self, member: Member, phase: int, agent: str) -> None:
        told: ChatMessage | None = None
        with contextlib.suppress(GreenroomError):  # it hears the line, once that is complete
            await self._players.summon(member, phase)
            while (message := self._newest[agent]) is not told:
                await self._house.overhear(self._players.namespace, agent, message)
                told = message
                await self._clock.sleep(EVERY_S)
