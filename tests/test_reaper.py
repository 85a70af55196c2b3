"""Agents whose time is over, in virtual time."""

from functools import partial

from greenroom.actors.agent_messages import AgentKey, AgentMessage, Vanish
from greenroom.actors.director_messages import DirectorMessage, Wake
from greenroom.actors.reaper import ROUND_S, Reaper
from greenroom.actors.roster import Roster
from greenroom.actors.store_messages import Overdue, StoreMessage
from greenroom.runtime.actor import Actor
from greenroom.runtime.agent_records import Forgotten, SpawnRequest
from greenroom.runtime.errors import NotFound
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System
from greenroom.runtime.testkit import run


def test_an_agent_is_overdue_once_it_was_unused_for_its_time() -> None:
    now = [1000.0]
    roster = Roster("model", lambda: now[0])
    key = AgentKey("", "bob")
    roster.know(roster.enrolled(SpawnRequest(name="bob", ttl_s=60)))
    roster.know(roster.enrolled(SpawnRequest(name="eve")))
    now[0] += 59
    assert roster.overdue() == ()
    roster.know(roster.moved(key, "head"))
    now[0] += 59
    assert roster.overdue() == ()
    now[0] += 1
    assert roster.overdue() == (key,)
    roster.know(roster.enrolled(SpawnRequest(name="bob", ttl_s=600)))
    assert roster.overdue() == ()
    roster.know(roster.branched(key, "fork", "head"))
    now[0] += 600
    assert {each.name for each in roster.overdue()} == {"bob", "fork"}


class Busy(Actor[StoreMessage | DirectorMessage | AgentMessage]):
    """Store, director and agent at once."""

    def __init__(self, asked: list[float], overdue: list[AgentKey]) -> None:
        self.asked = asked
        self.overdue = overdue

    async def handle(self, message: object) -> object:
        match message:
            case Overdue():
                self.asked.append(self.context.system.now())
                return tuple(self.overdue)
            case Wake(key):
                return self.context.spawn_or_get(key.name, partial(Leaving, self.overdue, key))
            case _:
                raise AssertionError(message)


class Leaving(Actor[AgentMessage]):
    def __init__(self, overdue: list[AgentKey], key: AgentKey) -> None:
        self.overdue = overdue
        self.key = key

    async def handle(self, message: AgentMessage) -> Forgotten:
        assert message == Vanish(overdue=True)
        self.overdue.remove(self.key)
        if self.key.name == "gone":
            raise NotFound("gone already")
        return Forgotten(1, 2)


def test_it_looks_again_and_again_and_one_that_fails_does_not_stop_it() -> None:
    asked: list[float] = []
    overdue = [AgentKey("", name) for name in ("gone", "bob", "eve")]

    async def main() -> None:
        async with System() as system:
            busy: Ref[StoreMessage | DirectorMessage | AgentMessage] = system.spawn(
                "busy", partial(Busy, asked, overdue)
            )
            system.spawn("reaper", partial(Reaper, busy, busy))
            await system.clock.sleep(3 * ROUND_S + 1)

    run(main, seed=3)
    assert overdue == []
    assert [round(at - asked[0]) for at in asked] == [0, ROUND_S, 2 * ROUND_S, 3 * ROUND_S]
