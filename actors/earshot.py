"""What is said in a scene reaches those who are not speaking, before they are asked anything."""

import contextlib

from greenroom.actors.players import Agency, Players
from greenroom.runtime.agent_records import HearRequest
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.plot import who_is_next
from greenroom.runtime.transcript import Line, Transcript, said_as


class Earshot:
    """Has the members of a scene hear its lines in the background.

    It only saves time: a member's next turn brings what it has not heard by then.
    """

    def __init__(self, players: Players, transcript: Transcript, house: Agency) -> None:
        self._players = players
        self._transcript = transcript
        self._house = house
        self._heard: dict[str, int] = {}  # up to where each agent has been told what was said

    async def spread(self) -> None:
        """Let members who are not speaking hear what is new to them, whoever is next first."""
        so_far = self._transcript
        busy = {cue.speaker for cue in so_far.open_cues.values()}
        following = who_is_next(so_far)
        members = sorted(so_far.scenario.members, key=lambda each: each.name != following)
        for member in members:
            if member.name in busy:
                continue
            agent = self._players.agent(member)
            since = self._heard.get(agent, 0)
            new = so_far.unheard(member, so_far.next_number, so_far.phase, since)
            with contextlib.suppress(GreenroomError):
                if new:
                    await self._players.summon(member, max(0, so_far.phase))
                for line in new:
                    await self._house.hear(self._hearing(agent, line))
            self._heard[agent] = so_far.next_number

    def _hearing(self, agent: str, line: Line) -> HearRequest:
        return HearRequest(
            agent=agent,
            content=line.text,
            name=said_as(line),
            namespace=self._players.namespace,
            key=self._players.key(line.number),
        )
