"""The agents who play the members of a scene."""

import contextlib
from typing import Protocol

from greenroom.runtime.agent_records import AgentInfo, Forgotten, HearRequest, SpawnRequest
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import NotFound
from greenroom.runtime.records import ChatMessage, TurnEvent, TurnRequest
from greenroom.runtime.scenario import Member
from greenroom.runtime.transcript import Transcript


class Agency(Protocol):
    """What a scene asks of the house that its agents live in: methods of ``House``."""

    async def spawn(self, request: SpawnRequest) -> AgentInfo: ...

    async def forget(self, namespace: str, agent: str) -> Forgotten: ...

    async def hear(self, request: HearRequest) -> None: ...

    async def overhear(self, namespace: str, agent: str, message: ChatMessage | None) -> None: ...

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]: ...


class Players:
    """Who plays whom in one scene, in the phase that runs, and what their keys are.

    What an agent is asked or told carries the key of an entry, ``uid`` and number: it answers one
    key once and hears one key once, so that asking again after a crash does no harm.
    """

    def __init__(self, namespace: str, uid: str, transcript: Transcript, house: Agency) -> None:
        self.namespace = namespace
        self._uid = uid
        self._transcript = transcript
        self._house = house

    def agent(self, member: Member) -> str:
        """The agent who plays a member now."""
        return agent_of(member, max(0, self._transcript.phase))

    def key(self, number: int) -> str:
        """The key of the entry of that number."""
        return f"{self._uid}.{number}"

    async def assemble(self) -> None:
        """See that everybody is there, and that whose phase is over is not."""
        phase = max(0, self._transcript.phase)
        for member in self._transcript.scenario.members:
            for earlier in range(phase):
                await self._release(member, earlier)
            await self.summon(member, phase)

    async def dismiss(self, phase: int) -> None:
        """Forget the ephemeral members' memory of a phase that is over."""
        for member in self._transcript.scenario.members:
            await self._release(member, phase)
            if member.ephemeral:
                await self.summon(member, max(0, self._transcript.phase))

    async def summon(self, member: Member, phase: int) -> None:
        """See that whoever plays the member in that phase is there, made if need be.

        Who was forgotten in mid-scene is itself again, and remembers from there on. To be done
        before it hears anything, which would make an agent without a system prompt.
        """
        name = agent_of(member, phase)
        await self._house.spawn(
            SpawnRequest(
                namespace=self.namespace,
                name=name,
                system=member.system,
                overflow=member.overflow,
            )
        )

    async def _release(self, member: Member, phase: int) -> None:
        if member.ephemeral:
            with contextlib.suppress(NotFound):
                await self._house.forget(self.namespace, agent_of(member, phase))


def agent_of(member: Member, phase: int) -> str:
    """The agent who plays a member: in each phase another one, if it is ephemeral."""
    assert member.agent is not None
    return f"{member.agent}~{phase + 1}" if member.ephemeral else member.agent
