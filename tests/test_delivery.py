"""A message reaches the agent that is there, not the one that has just gone."""

import asyncio

import pytest

from greenroom.actors.agent_messages import AgentKey, AgentMessage, Hear
from greenroom.actors.delivery import deliver
from greenroom.actors.director_messages import Wake
from greenroom.runtime.actor import Actor
from greenroom.runtime.errors import ActorStopped
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System

BOB = AgentKey("", "bob")


class Listener(Actor[AgentMessage]):
    """An agent that keeps what it is told."""

    def __init__(self, told: list[AgentMessage]) -> None:
        self._told = told

    async def handle(self, message: AgentMessage) -> None:
        self._told.append(message)


class Hasty(Actor[Wake]):
    """A director whose first ``gone`` agents are stopped between its answer and its caller."""

    def __init__(self, system: System, gone: int, told: list[AgentMessage]) -> None:
        self._system = system
        self._gone = gone
        self._told = told
        self.woken = 0

    async def handle(self, message: Wake) -> Ref[AgentMessage]:
        assert message == Wake(BOB, enrol=False)
        self.woken += 1
        agent: Ref[AgentMessage] = self._system.spawn(
            f"bob-{self.woken}", lambda: Listener(self._told)
        )
        if self.woken <= self._gone:
            await self._system.stop(agent)
        return agent


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_an_agent_that_is_stopped_before_it_is_told_is_woken_anew(gone: int) -> None:
    told: list[AgentMessage] = []

    async def scenario() -> None:
        async with System() as system:
            hasty = Hasty(system, gone, told)
            director: Ref[Wake] = system.spawn("director", lambda: hasty)
            await deliver(director, BOB, Hear(ChatMessage("user", "Hi")), enrol=False)
            assert hasty.woken == gone + 1
            await system.stop(director)
            with pytest.raises(ActorStopped):
                await deliver(director, BOB, Hear(ChatMessage("user", "No")), enrol=False)

    asyncio.run(scenario())
    assert told == [Hear(ChatMessage("user", "Hi"))]
