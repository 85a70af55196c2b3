"""Group commit: how many syncs, what is answered when, and whom a failure takes with it."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.store_messages import (
    Branch,
    Commit,
    Enrol,
    FindAgent,
    ListAgents,
    Match,
    Retire,
)
from greenroom.runtime.agent_records import AgentInfo, SpawnRequest
from greenroom.runtime.errors import ActorFailed, Conflict, StorageFailed
from greenroom.runtime.index import Index
from greenroom.runtime.medium import Medium
from tests.backstage import ALICE, BOB, Backstage, backstage, segment
from tests.test_index import agent

MANY = 300


class Counting(Medium):
    """The real disk; ``commits`` counts transactions, each of which is a sync of the log."""

    def __init__(self) -> None:
        self.commits = 0
        self.is_full: Callable[[sqlite3.Connection], bool] = lambda database: False

    def commit(self, database: sqlite3.Connection) -> None:
        self.commits += 1
        if self.is_full(database):
            raise sqlite3.OperationalError("database or disk is full")
        super().commit(database)


class Held(Counting):
    """A disk that takes its time: a commit ends when ``go`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def commit(self, database: sqlite3.Connection) -> None:
        self.begun.set()
        assert self.go.wait(60)
        super().commit(database)


def enrol(name: str, system: str | None = None) -> Enrol:
    return Enrol(SpawnRequest(namespace="n", name=name, system=system))


def on_disk(root: Path) -> set[str]:
    with closing(Index(root)) as index:
        return {row.name for row in index.list_agents("n")}


def play(
    root: Path, medium: Medium, scenario: Callable[[Backstage], Coroutine[Any, Any, None]]
) -> None:
    backstage(root, scenario, medium=medium)


def test_those_who_wait_share_a_sync(tmp_path: Path) -> None:
    medium = Counting()

    async def scenario(house: Backstage) -> None:
        before = medium.commits
        asked = [house.store.ask(enrol(f"agent-{n}")) for n in range(MANY)]
        found = await asyncio.gather(*asked)
        assert [info.name for info in found] == [f"agent-{n}" for n in range(MANY)]
        assert medium.commits - before < MANY / 10, "a sync for each"
        assert len(await house.store.ask(ListAgents("n"))) == MANY

    play(tmp_path, medium, scenario)
    assert on_disk(tmp_path) == {f"agent-{n}" for n in range(MANY)}


def test_one_alone_is_one_plain_transaction(tmp_path: Path) -> None:
    statements: list[str] = []

    class Traced(Counting):
        def commit(self, database: sqlite3.Connection) -> None:
            super().commit(database)
            database.set_trace_callback(statements.append)

    async def scenario(house: Backstage) -> None:
        await house.store.ask(enrol("first"))
        statements.clear()
        await house.store.ask(enrol("second"))
        begin, *inserts, commit = (each for each in statements if not each.startswith("SELECT"))
        assert (begin, commit) == ("BEGIN IMMEDIATE", "COMMIT")
        assert all(each.startswith("INSERT") for each in inserts)

    play(tmp_path, Traced(), scenario)


def test_nothing_is_answered_before_it_is_durable_and_who_only_asks_does_not_wait(
    tmp_path: Path,
) -> None:
    medium = Held()

    async def scenario(house: Backstage) -> None:
        first = segment(None, [1, 2, 3])
        await house.turn(ALICE, first)
        medium.go.clear()
        medium.begun.clear()
        second = segment(first, [4])
        growing = asyncio.ensure_future(house.store.ask(Commit(ALICE, (second,), second.id)))
        assert await asyncio.to_thread(medium.begun.wait, 60)
        joining = asyncio.ensure_future(house.store.ask(enrol("bob")))
        known = await house.store.ask(FindAgent(ALICE))
        assert known is not None
        assert known.info.head == first.id, "told before it was durable"
        (piece,) = await house.store.ask(Match("n", (1, 2, 3, 4)))
        assert piece.segment == first
        assert await house.store.ask(FindAgent(BOB)) is None
        assert not growing.done()
        assert not joining.done()
        medium.go.set()
        await growing
        assert (await joining).name == "bob"
        known = await house.store.ask(FindAgent(ALICE))
        assert known is not None
        assert known.info.head == second.id

    play(tmp_path, medium, scenario)


def test_two_changes_of_one_agent_follow_each_other(tmp_path: Path) -> None:
    async def scenario(house: Backstage) -> None:
        asked = [house.store.ask(enrol("alice", system)) for system in ("A", "B", "A")]
        first, second, third = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(first, AgentInfo)
        assert isinstance(second, Conflict)
        assert isinstance(third, AgentInfo)
        fork, again = await asyncio.gather(
            house.store.ask(Branch(ALICE, "bob", None)),
            house.store.ask(Branch(ALICE, "bob", None)),
            return_exceptions=True,
        )
        assert isinstance(fork, AgentInfo)
        assert isinstance(again, Conflict)

    play(tmp_path, Medium(), scenario)


def test_one_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    medium = Counting()

    async def scenario(house: Backstage) -> None:
        names = [f"agent-{n}" for n in range(20)]
        before = medium.commits
        asked = [house.store.ask(enrol(n, "\ud800" if n == "agent-7" else None)) for n in names]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert medium.commits - before < 10, "a sync for each"
        failed = [n for n, each in zip(names, outcomes, strict=True) if isinstance(each, Exception)]
        assert failed == ["agent-7"]
        assert isinstance(outcomes[7], ActorFailed)
        assert await house.store.ask(FindAgent(AgentKey("n", "agent-7"))) is None
        assert (await house.store.ask(enrol("agent-7"))).name == "agent-7"

    play(tmp_path, medium, scenario)
    assert len(on_disk(tmp_path)) == 20


def test_a_disk_that_is_full_is_told_to_all_and_known_to_none(tmp_path: Path) -> None:
    medium = Counting()

    async def scenario(house: Backstage) -> None:
        medium.is_full = lambda database: True
        asked = [house.store.ask(enrol(f"agent-{n}")) for n in range(9)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, StorageFailed) for each in outcomes)
        assert await house.store.ask(ListAgents("n")) == ()
        medium.is_full = lambda database: False
        await house.store.ask(enrol("agent-0"))

    play(tmp_path, medium, scenario)
    assert on_disk(tmp_path) == {"agent-0"}


def test_where_there_is_room_for_some_they_are_written(tmp_path: Path) -> None:
    """The group does not fit, and neither does the third alone."""
    medium = Counting()
    with closing(Index(tmp_path, medium)) as index:

        def is_full(database: sqlite3.Connection) -> bool:
            names = {row[0] for row in database.execute("SELECT name FROM agents")}
            return "c" in names

        medium.is_full = is_full
        changes = [partial(index.commit, agent=agent(name)) for name in "abcd"]
        outcomes = index.together(changes)
        assert [type(each) for each in outcomes] == [
            type(None),
            type(None),
            StorageFailed,
            type(None),
        ]
    assert on_disk(tmp_path) == {"a", "b", "d"}


def test_what_is_asked_last_is_written_before_the_store_stops(tmp_path: Path) -> None:
    medium = Held()

    async def scenario(house: Backstage) -> None:
        medium.go.clear()
        medium.begun.clear()
        asked = [asyncio.ensure_future(house.store.ask(enrol(f"agent-{n}"))) for n in range(9)]
        assert await asyncio.to_thread(medium.begun.wait, 60)
        stopping = asyncio.ensure_future(house.system.stop(house.store))
        await asyncio.sleep(0)
        assert not stopping.done()
        medium.go.set()
        await stopping
        assert [info.name for info in await asyncio.gather(*asked)] == sorted(
            f"agent-{n}" for n in range(9)
        )

    play(tmp_path, medium, scenario)


def test_a_store_that_crashes_meanwhile_says_so_and_finds_what_was_written(tmp_path: Path) -> None:
    medium = Held()

    async def scenario(house: Backstage) -> None:
        medium.go.clear()
        medium.begun.clear()
        asked = [asyncio.ensure_future(house.store.ask(enrol(f"agent-{n}"))) for n in range(3)]
        assert await asyncio.to_thread(medium.begun.wait, 60)
        house.store.cell.fail(RuntimeError("a defect"))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, ActorFailed) for each in outcomes)
        medium.go.set()
        known = await house.store.ask(FindAgent(AgentKey("n", "agent-0")))
        assert known is not None, "the new generation read the index before it was written"

    play(tmp_path, medium, scenario)


def test_what_makes_things_go_waits_until_all_is_written(tmp_path: Path) -> None:
    medium = Held()

    async def scenario(house: Backstage) -> None:
        first = segment(None, [1, 2, 3])
        await house.turn(ALICE, first)
        medium.go.clear()
        medium.begun.clear()
        branch = asyncio.ensure_future(house.store.ask(Branch(ALICE, "bob", first.id)))
        assert await asyncio.to_thread(medium.begun.wait, 60)
        retired = asyncio.ensure_future(house.store.ask(Retire(ALICE)))
        await asyncio.sleep(0)
        medium.go.set()
        await branch
        assert await retired == (), "bob stands on it"

    play(tmp_path, medium, scenario)
