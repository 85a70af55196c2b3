import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from greenroom.runtime.clock import LoopClock, Timer
from greenroom.runtime.errors import ActorStopped, NameTaken
from greenroom.runtime.props import STOP_DEADLINE_S
from greenroom.runtime.system import System
from greenroom.runtime.testkit import expect_dead_letters, run, settle
from tests.troupe import Crash, Note, Notes, Work, Worker

SEEDS = range(5)


@pytest.mark.parametrize("seed", range(20))
def test_spawn_or_get_makes_one_actor_under_contention(seed: int) -> None:
    async def main() -> None:
        made: list[Worker] = []

        def factory() -> Worker:
            made.append(Worker())
            return made[-1]

        async with System() as system:

            async def visit(n: int) -> None:
                for _ in range(n % 3):
                    await asyncio.sleep(0)
                ref = system.spawn_or_get("a", factory, identity="prompt")
                ref.tell(Note(n))

            await asyncio.gather(*(visit(n) for n in range(20)))
            ref = system.get("a")
            assert ref is not None
            assert sorted(await ref.ask(Notes())) == list(range(20))
            assert len(made) == 1

    run(main, seed=seed)


def test_another_identity_is_a_conflict() -> None:
    async def main() -> None:
        async with System() as system:
            system.spawn_or_get("a", Worker, identity=("prompt", "model"))
            with pytest.raises(NameTaken):
                system.spawn_or_get("a", Worker, identity=("another prompt", "model"))

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_successor_waits_until_its_predecessor_has_stopped(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:

            def factory() -> Worker:
                return Worker(trace, slow_stop_s=2.0)

            old = system.spawn("a", factory)
            await old.ask(Notes())
            stopping = asyncio.create_task(system.stop(old))
            await asyncio.sleep(1.0)
            new = system.spawn_or_get("a", factory)
            assert new != old
            assert system.spawn_or_get("a", factory) == new
            new.tell(Note(1))
            assert await new.ask(Notes()) == [1]
            assert trace == ["start", "stop", "start", 1]
            assert await stopping

    run(main, seed=seed)


def test_killing_the_successor_does_not_let_a_third_in_early() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:

            def factory() -> Worker:
                return Worker(trace, slow_stop_s=2.0)

            first = system.spawn("a", factory)
            await first.ask(Notes())
            stopping = asyncio.create_task(system.stop(first))
            await asyncio.sleep(1.0)
            second = system.spawn("a", factory)
            await system.kill(second)
            third = system.spawn("a", factory)
            assert await third.ask(Notes()) == []
            assert trace == ["start", "stop", "start"]
            await stopping
            assert system.get("a") == third

    run(main)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_idle_actor_leaves_memory_and_comes_back(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace), passivate_after_s=10.0)
            for n in range(3):
                ref.tell(Note(n))
                await asyncio.sleep(6.0)  # never idle for long enough
            assert trace == ["start", 0, 1, 2]
            await asyncio.sleep(6.0)
            assert trace[-1] == "stop"
            assert ref.cell.actor is None
            assert system.inspect().actors == []
            assert system.inspect().num_asleep == 1
            assert system.get("a") == ref
            assert await ref.ask(Notes()) == []
            (info,) = system.inspect().actors
            assert (info.generation, info.restarts) == (2, 0)
            assert trace[-1] == "start"

    run(main, seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_message_during_passivation_is_not_lost(seed: int) -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace, slow_stop_s=4.0), passivate_after_s=10.0)
            await asyncio.sleep(12.0)
            assert system.inspect().actors[0].state == "passivating"
            ref.tell(Note(1))
            assert system.spawn_or_get("a", Worker) == ref
            assert await ref.ask(Notes()) == [1]
            assert trace == ["start", "stop", "start", 1]

    run(main, seed=seed)


def test_a_busy_actor_or_one_with_children_stays() -> None:
    class Parent(Worker):
        async def on_start(self) -> None:
            await super().on_start()
            self.context.spawn("child", Worker)

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            busy = system.spawn("busy", lambda: Worker(trace), passivate_after_s=1.0)
            system.spawn("parent", lambda: Parent(trace), passivate_after_s=1.0)
            assert await busy.ask(Work("work", 20.0)) == "work"
            assert trace == ["start", "start", "work done"]

    run(main)


def test_a_passivation_that_cannot_persist_keeps_the_actor() -> None:
    class Full(Worker):
        async def on_stop(self) -> None:
            if not self.trace.count("failed to stop"):
                self.trace.append("failed to stop")
                raise ActorStopped("disk", "is full")

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Full(trace), passivate_after_s=10.0)
            ref.tell(Note(1))
            await asyncio.sleep(15.0)
            assert await ref.ask(Notes()) == [1]
            assert trace == ["start", 1, "failed to stop"]

    run(main)


def test_a_sleeper_that_nobody_knows_is_forgotten_and_a_dead_sleeper_refuses() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker, passivate_after_s=1.0)
            system.spawn("b", Worker, passivate_after_s=1.0)
            await asyncio.sleep(5.0)
            gc.collect()
            assert system.inspect().num_asleep == 1
            await system.stop(ref)
            assert system.inspect().num_asleep == 0
            with pytest.raises(ActorStopped):
                ref.tell(Note(1))

    run(main)


def test_sleeping_children_end_with_their_parent() -> None:
    class Parent(Worker):
        async def on_start(self) -> None:
            self.context.spawn("child", Worker, passivate_after_s=1.0)

    async def main() -> None:
        async with System() as system:
            parent = system.spawn("parent", Parent)
            await parent.ask(Notes())
            child = system.get("parent/child")
            assert child is not None
            await asyncio.sleep(5.0)
            assert system.inspect().num_asleep == 1
            await system.stop(parent)
            with expect_dead_letters(system, Note), pytest.raises(ActorStopped):
                child.tell(Note(1))

    run(main)


def test_an_idle_timer_may_ring_early() -> None:
    class Early(LoopClock):
        rings = 0

        def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Timer:
            self.rings += 1
            early = 0.0005 if self.rings < 50 else 0.0  # as uvloop rounds
            return super().call_later(delay_s - early, callback, *args)

    async def main() -> None:
        clock = Early(asyncio.get_running_loop())
        async with System(clock=clock) as system:
            ref = system.spawn("a", Worker, passivate_after_s=10.0)
            await ref.ask(Notes())
            await asyncio.sleep(15.0)
            assert system.inspect().num_asleep == 1
            assert clock.rings < 5

    run(main)


def test_time_to_live_ends_an_actor_gracefully() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace), time_to_live_s=10.0)
            asking = asyncio.create_task(ref.ask(Work("work", 15.0)))
            await asyncio.sleep(12.0)
            with pytest.raises(ActorStopped):
                ref.tell(Note(1))
            assert await asking == "work"
            await settle()
            assert trace == ["start", "work done", "stop"]
            assert system.get("a") is None

    run(main)


def test_time_to_live_kills_what_does_not_stop() -> None:
    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Worker(trace), time_to_live_s=10.0)
            with pytest.raises(ActorStopped):
                await ref.ask(Work("endless", 1000.0))
            assert asyncio.get_running_loop().time() == pytest.approx(10.0 + STOP_DEADLINE_S)
            assert trace == ["start", "endless cancelled", "given up: ActorStopped"]
            assert system.get("a") is None

    run(main)


def test_timers_end_with_their_generation() -> None:
    class Timed(Worker):
        async def on_start(self) -> None:
            generation = self.context.generation
            self.context.timer(5.0, Note(generation))
            self.context.timer(5.0, Note(-1)).cancel()

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Timed(trace))
            await asyncio.sleep(3.0)
            ref.tell(Crash())
            await asyncio.sleep(3.0)
            assert trace == ["given up: BoomError"]
            await asyncio.sleep(10.0)
            assert trace == ["given up: BoomError", 2]

    run(main)


def test_background_work_ends_with_its_generation_and_fails_it() -> None:
    class Host(Worker):
        async def on_start(self) -> None:
            self.context.background(self.tick(self.context.generation))

        async def tick(self, generation: int) -> None:
            try:
                await asyncio.sleep(5.0)
            except asyncio.CancelledError:
                self.trace.append(f"{generation} cancelled")
                raise
            self.trace.append(f"{generation} ticked")
            raise ValueError("tick")

    async def main() -> None:
        trace: list[Any] = []
        async with System() as system:
            ref = system.spawn("a", lambda: Host(trace))
            await asyncio.sleep(3.0)
            ref.tell(Crash())
            await asyncio.sleep(7.0)
            (info,) = system.inspect().actors
            assert (info.generation, info.last_error) == (3, "ValueError")
        assert trace == [
            "given up: BoomError",
            "1 cancelled",
            "2 ticked",
            "given up: ValueError",
            "stop",
            "3 cancelled",
        ]

    run(main)
