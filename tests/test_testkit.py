import asyncio
import time
from typing import Any

import pytest

from greenroom.runtime.system import System
from greenroom.runtime.testkit import (
    DeadlockError,
    Probe,
    VirtualClock,
    expect_dead_letters,
    run,
    settle,
)
from tests.troupe import Note, Notes, Work, Worker


def schedule(seed: int | None) -> list[int]:
    async def main() -> list[int]:
        order: list[int] = []

        async def step(n: int) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
                order.append(n)

        await asyncio.gather(*(step(n) for n in range(5)))
        return order

    return run(main, seed=seed)


def test_a_seed_is_a_schedule() -> None:
    assert schedule(7) == schedule(7)
    assert len({tuple(schedule(seed)) for seed in range(10)}) == 10
    assert schedule(None) == list(range(5)) * 3


def test_time_jumps_and_timers_keep_their_order() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        for delay in (3600.0, 0.1, 86_400.0):
            loop.call_later(delay, lambda: fired.append(loop.time()))
        await asyncio.sleep(100_000.0)
        return fired

    began = time.perf_counter()
    assert run(main, seed=1) == pytest.approx([0.1, 3600.0, 86_400.0])
    assert time.perf_counter() - began < 60.0


def test_a_wait_that_nothing_can_end_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(DeadlockError):
        run(main)


def test_a_clock_moved_by_hand_drives_actors_on_a_real_loop() -> None:
    class Sleeper(Worker):
        async def work(self, label: str, seconds: float) -> str:
            await self.context.system.clock.sleep(seconds)
            return label

    async def main() -> None:
        clock = VirtualClock()
        async with System(clock=clock) as system:
            ref = system.spawn("a", Sleeper, passivate_after_s=100.0)
            asking = asyncio.create_task(ref.ask(Work("work", 50.0), timeout=60.0))
            await settle()
            await clock.advance(49.0)
            assert not asking.done()
            await clock.advance(1.0)
            assert await asking == "work"
            await clock.advance(101.0)
            assert system.inspect().num_asleep == 1

    asyncio.run(main())


def test_a_probe_answers_and_remembers() -> None:
    async def main() -> None:
        async with System() as system:
            probe = Probe[Any](system, answer=lambda message: [42])
            assert await probe.ref.ask(Notes()) == [42]
            assert await probe.expect(Notes) == Notes()
            probe.ref.tell(Note(1))
            with pytest.raises(AssertionError, match="expected a Work"):
                await probe.expect(Work)
            await probe.expect_nothing(10.0)
            probe.ref.tell(Note(2))
            with pytest.raises(AssertionError, match="expected nothing"):
                await probe.expect_nothing(10.0)

    run(main)


def test_dead_letters_can_be_expected() -> None:
    async def main() -> None:
        async with System() as system:
            ref = system.spawn("a", Worker)
            await system.stop(ref)
            with expect_dead_letters(system, Note) as letters:
                ref.cell.post_quietly(Note(1))
            assert [(letter.to, letter.why) for letter in letters] == [("a", "stopped")]
            with (
                pytest.raises(AssertionError, match="expected dead letters"),
                expect_dead_letters(system),
            ):
                ref.cell.post_quietly(Note(1))

    run(main)
