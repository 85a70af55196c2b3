"""The prompter of a scene: members follow what another says word by word, before it is a line.

It only saves time. Whoever speaks next then has the others' words on the stage already; what it is
told in its turn is the line as the transcript has it.
"""

import asyncio
import contextlib
from collections.abc import Collection

from greenroom.actors.house import House
from greenroom.runtime.clock import Clock
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.plot import heard_so_far
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.transcript import Cue

EVERY_S = 0.2
"""Between two times that an agent is told: each renders its prompt anew, for a few words."""


class Prompter:
    """Tells agents of one namespace what is being said so far, each at its own pace."""

    def __init__(self, namespace: str, house: House, clock: Clock) -> None:
        self._namespace = namespace
        self._house = house
        self._clock = clock
        self._newest: dict[str, ChatMessage] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def prompt(self, cue: Cue, said: str, agents: Collection[str]) -> None:
        """Under a cue so much has been said; ``agents`` are who hears it, the most eager first."""
        message = heard_so_far(cue, said)
        if message is None:
            return
        for agent in agents:
            if self._newest.get(agent) == message:
                continue
            self._newest[agent] = message
            # Done once it has told all there was; it is kept, since that has to be ended one day.
            if agent not in self._tasks or self._tasks[agent].done():
                self._tasks[agent] = asyncio.ensure_future(self._tell(agent))

    def leave(self, agent: str) -> None:
        """The agent is asked now, and told everything with that."""
        self._newest.pop(agent, None)
        if (task := self._tasks.pop(agent, None)) is not None:
            task.cancel()

    async def stop(self) -> None:
        """Nothing is being said any more: what agents were told for good they may remember."""
        agents = tuple(self._tasks)
        for agent in agents:
            self.leave(agent)
        for agent in agents:
            with contextlib.suppress(GreenroomError):
                await self._house.overhear(self._namespace, agent, None)

    async def _tell(self, agent: str) -> None:
        told: ChatMessage | None = None
        while (message := self._newest[agent]) is not told:
            with contextlib.suppress(GreenroomError):
                await self._house.overhear(self._namespace, agent, message)
            told = message
            await self._clock.sleep(EVERY_S)
