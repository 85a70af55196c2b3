"""The agents who play the members of a scene."""

import contextlib

from greenroom.actors.house import House
from greenroom.runtime.errors import NotFound
from greenroom.runtime.records import SpawnRequest
from greenroom.runtime.scenario import Member
from greenroom.runtime.transcript import Transcript


class Players:
    """Who plays whom in one scene, in the phase that runs, and what their keys are.

    What an agent is asked or told carries the key of an entry, ``uid`` and number: it answers one
    key once and hears one key once, so that asking again after a crash does no harm.
    """

    def __init__(self, namespace: str, uid: str, transcript: Transcript, house: House) -> None:
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
        """See that everybody is there."""
        for member in self._transcript.scenario.members:
            await self._summon(member)

    async def dismiss(self, phase: int) -> None:
        """Forget the ephemeral members' memory of a phase that is over."""
        for member in self._transcript.scenario.members:
            if member.ephemeral:
                with contextlib.suppress(NotFound):
                    await self._house.forget(self.namespace, agent_of(member, phase))
                await self._summon(member)

    async def _summon(self, member: Member) -> None:
        await self._house.spawn(
            SpawnRequest(namespace=self.namespace, name=self.agent(member), system=member.system)
        )


def agent_of(member: Member, phase: int) -> str:
    """The agent who plays a member: in each phase another one, if it is ephemeral."""
    assert member.agent is not None
    return f"{member.agent}~{phase + 1}" if member.ephemeral else member.agent
