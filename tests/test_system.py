import asyncio
import logging
from typing import Any, ClassVar, Literal

import pytest

from greenroom.runtime.errors import ActorFailed, ActorStopped, InvalidRequest, NameTaken
from greenroom.runtime.message import Terminated
from greenroom.runtime.props import Props
from greenroom.runtime.system import System
from greenroom.runtime.testkit import Probe, expect_dead_letters, run, settle
from tests.troupe import BoomError, Crash, Note, Notes, Work, Worker

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_graceful_stop_drains_then_persists(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            work = asyncio.create_task(ref.ask(Work("work", 5.0)))
            await asyncio.sleep(1.0)
            ref.tell(Note(1))
            stopping = asyncio.create_task(system.stop(ref))
            await asyncio.sleep(1.0)
            with pytest.raises(ActorStopped):
                ref.tell(Note(2))
            assert await stopping is True
            assert await work == "work"
            assert trace == ["start", "work done", 1, "stop"]
            assert system.get("a") is None

    run(main, seed=seed)


def test_stopping_without_draining_drops_what_is_queued() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            work = asyncio.create_task(ref.ask(Work("work", 5.0)))
            await asyncio.sleep(1.0)
            ref.tell(Note(1))
            with expect_dead_letters(system, Note):
                assert await system.stop(ref, drain=False)
            assert await work == "work"
            assert trace == ["start", "work done", "stop"]

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stop_that_takes_too_long_becomes_a_kill(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            work = asyncio.create_task(ref.ask(Work("work", 50.0)))
            await asyncio.sleep(1.0)
            ref.tell(Note(1))
            with expect_dead_letters(system, Work, Note):
                assert await system.stop(ref, deadline_s=3.0) is False
            with pytest.raises(ActorStopped):
                await work
            assert trace == ["start", "work cancelled", "given up: ActorStopped"]
            assert asyncio.get_running_loop().time() < 5.0

    run(main, seed=seed)


def test_a_kill_overtakes_a_stop_and_a_full_mailbox() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace))
            work = asyncio.create_task(ref.ask(Work("work", 50.0)))
            await asyncio.sleep(1.0)
            for n in range(256):
                ref.tell(Note(n))
            stopping = asyncio.create_task(system.stop(ref))
            await asyncio.sleep(1.0)
            await system.kill(ref)
            assert await stopping is False
            with pytest.raises(ActorStopped):
                await work
            assert trace == ["start", "work cancelled", "given up: ActorStopped"]
            assert system.dead_letters.counts == {"stopped": 256, "killed": 1}

    run(main)


def test_a_kill_outranks_a_failure_that_is_under_way() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            asking = asyncio.create_task(ref.ask(Work("work", 50.0)))
            await asyncio.sleep(1.0)
            ref.cell.fail(BoomError())
            await system.kill(ref)
            with pytest.raises(ActorStopped):
                await asking
            assert ref.cell.reason == "killed"
            assert system.inspect().actors == []

    run(main)


def test_a_kill_before_the_first_step_starts_nothing() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            await system.kill(system.spawn("a", lambda: Worker(trace)))
            assert trace == []

    run(main)


def test_a_kill_during_the_stop_hook() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace, slow_stop_s=50.0))
            assert await system.stop(ref, deadline_s=1.0) is False
            assert trace == ["start", "given up: ActorStopped"]

    run(main)


def test_a_stop_while_a_restart_is_due_ends_it() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            with pytest.raises(ActorFailed):
                await ref.ask(Crash())
            with expect_dead_letters(system, Note):
                ref.tell(Note(1))
                assert await system.stop(ref)

    run(main)


def test_a_handler_that_never_lets_go_is_left_behind_with_an_error_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Deaf(Worker):
        async def work(self, label: str, seconds: float) -> str:
            while asyncio.get_running_loop().time() < 1000.0:
                try:
                    await asyncio.sleep(seconds)
                except asyncio.CancelledError:
                    self.trace.append("deaf")
            return label

    async def main() -> None:
        system = System()
        ref = system.spawn("a", Deaf)
        asking = asyncio.create_task(ref.ask(Work("for ever", 100.0)))
        await asyncio.sleep(1.0)
        assert await system.shutdown(2.0) is False
        assert asyncio.get_running_loop().time() < 10.0
        await asking

    with caplog.at_level(logging.ERROR, "greenroom"):
        run(main)
    assert "left behind" in caplog.text


class Family(Worker):
    """Three children whose stops take a second each."""

    def __init__(self, trace: list[Any], order: list[str]) -> None:
        super().__init__(order)
        self.shared = trace

    async def on_start(self) -> None:
        for name in "abc":
            self.context.spawn(name, lambda: Worker(self.shared, slow_stop_s=1.0))


class CloseFamily(Family):
    children_stop: ClassVar[Literal["reversed", "together"]] = "together"


@pytest.mark.parametrize(("kind", "seconds"), [(Family, 3.0), (CloseFamily, 1.0)])
def test_children_stop_before_their_parent(kind: type[Family], seconds: float) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            parent = system.spawn("parent", lambda: kind(trace, trace))
            await parent.ask(Notes())
            began = asyncio.get_running_loop().time()
            assert await system.stop(parent)
            took = asyncio.get_running_loop().time() - began
            assert took == pytest.approx(seconds, abs=0.01)
            assert trace == ["start"] * 3 + ["stop"] * 4
            assert system.inspect().actors == []

    run(main)


def test_killing_a_parent_kills_its_children_first() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            parent = system.spawn("parent", lambda: Family(trace, trace))
            await parent.ask(Notes())
            child = system.get("parent/b")
            assert child is not None
            asking = asyncio.create_task(child.ask(Work("work", 50.0)))
            await asyncio.sleep(1.0)
            await system.kill(parent)
            with pytest.raises(ActorStopped):
                await asking
            assert "work cancelled" in trace
            assert "stop" not in trace
            assert system.inspect().actors == []

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_watch_fires_once_also_for_the_dead(seed: int) -> None:
    async def main() -> None:
        async with System() as system:
            probe = Probe[Any](system)
            victims = [system.spawn(name, Worker) for name in "abc"]
            for victim in victims:
                probe.watch(victim)
            probe.ref.cell.unwatch(victims[2].cell)
            await system.stop(victims[0])
            assert await probe.expect(Terminated) == Terminated(victims[0], "stopped")
            await system.kill(victims[1])
            assert await probe.expect(Terminated) == Terminated(victims[1], "killed")
            await system.kill(victims[2])
            await probe.expect_nothing()
            probe.watch(victims[2])
            assert await probe.expect(Terminated) == Terminated(victims[2], "killed")
            await probe.expect_nothing()

    run(main, seed=seed)


def test_terminated_overtakes_ordinary_messages() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            watcher = system.spawn("watcher", lambda: Worker(trace))
            watched = system.spawn("watched", Worker)
            watcher.cell.watch(watched.cell)
            work = asyncio.create_task(watcher.ask(Work("work", 5.0)))
            await asyncio.sleep(1.0)
            watcher.tell(Note(1))
            await system.kill(watched)
            await work
            await watcher.ask(Notes())
            assert trace == ["start", "work done", ("watched", "killed"), 1]

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_shutdown_stops_the_newest_first_and_refuses_newcomers(seed: int) -> None:
    async def main() -> None:
        stopped: list[str] = []

        class Named(Worker):
            async def on_stop(self) -> None:
                stopped.append(self.context.self_ref.name)

        system = System()
        for name in ("store", "gpu", "director"):
            system.spawn(name, Named)
        assert await system.shutdown()
        assert stopped == ["director", "gpu", "store"]
        with pytest.raises(ActorStopped):
            system.spawn("late", Worker)

    run(main, seed=seed)


def test_leaving_the_block_kills_what_does_not_stop_in_time() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System(shutdown_s=2.0) as system:
            ref = system.spawn("a", lambda: Worker(trace))
            asking = asyncio.create_task(ref.ask(Work("work", 50.0)))
            await asyncio.sleep(1.0)
        with pytest.raises(ActorStopped):
            await asking
        assert trace == ["start", "work cancelled", "given up: ActorStopped"]

    run(main)


def test_tearing_the_loop_down_ends_actors() -> None:
    trace: list[Any] = []

    async def main() -> Any:
        system = System()
        ref = system.spawn("a", lambda: Worker(trace))
        asking = asyncio.create_task(ref.ask(Work("work", 50.0)))
        await asyncio.sleep(1.0)
        assert not asking.done()
        return ref

    ref = run(main)  # the runner cancels every task
    assert trace == ["start", "work cancelled", "given up: CancelledError"]
    assert ref.cell.reason == "killed"


def test_telling_from_a_thread_after_the_loop_has_gone() -> None:
    async def main() -> Any:
        async with System() as system:
            return system.spawn("a", Worker)

    ref = asyncio.run(main())
    with pytest.raises(ActorStopped):
        ref.tell_threadsafe(Note(1))


def test_the_resolver_brings_actors_to_life_by_name() -> None:
    async def main() -> None:
        def resolve(name: str) -> Props | None:
            return Props(Worker) if name.startswith("agent:") else None

        async with System(resolver=resolve) as system:
            ref = system.get("agent:alice")
            assert ref is not None
            assert await ref.ask(Notes()) == []
            assert system.get("agent:alice") == ref
            assert system.get("someone") is None
            with pytest.raises(InvalidRequest):
                system.get("agent:a/b")

    run(main)


def test_inspect_shows_what_everyone_is_doing() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            asking = asyncio.create_task(ref.ask(Work("work", 10.0)))
            await asyncio.sleep(2.0)
            ref.tell(Note(1))
            await asyncio.sleep(3.0)
            (info,) = system.inspect().actors
            assert (info.path, info.state, info.current) == ("a", "running", "Work")
            assert info.current_age_s == pytest.approx(5.0, abs=0.01)
            assert info.mailbox.depth == 1
            assert info.mailbox.oldest_age_s == pytest.approx(3.0, abs=0.01)
            await asking
            await settle()
            (info,) = system.inspect().actors
            assert (info.current, info.mailbox.depth, info.mailbox.taken) == (None, 0, 2)

    run(main)


def test_no_message_content_in_the_logs_at_info(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            with pytest.raises(ActorFailed):
                await ref.ask(Crash())
            await system.stop(ref)
            with pytest.raises(ActorStopped):
                ref.tell(Work("a secret prompt"))

    with caplog.at_level(logging.DEBUG, "greenroom"):
        run(main)
    assert "secret" not in caplog.text
    crash = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert vars(crash)["actor"] == "a"


def test_spawning_a_taken_name_is_a_conflict() -> None:
    async def main() -> None:
        async with System() as system:
            system.spawn("a", Worker)
            with pytest.raises(NameTaken):
                system.spawn("a", Worker)

    run(main)
