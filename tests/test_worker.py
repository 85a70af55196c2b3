"""The owner thread: order, idleness, failure and the end, with a real thread."""

import asyncio
import threading
from functools import partial

import pytest

from greenroom.runtime.worker import Worker

pytestmark = pytest.mark.anyio


class Countdown:
    """Work that takes so many steps."""

    def __init__(self) -> None:
        self.left = 0
        self.steps = 0
        self.rests = 0
        self.rested = threading.Event()
        self.thread = threading.current_thread()

    @property
    def idle(self) -> bool:
        return self.left == 0

    def step(self) -> None:
        assert threading.current_thread() is self.thread
        self.left -= 1
        self.steps += 1
        if self.left == 13:
            raise ValueError("thirteen")

    def rest(self) -> None:
        assert threading.current_thread() is self.thread
        self.rests += 1
        self.rested.set()


class Rig:
    """A worker on a Countdown, and what it told."""

    def __init__(self, rest_after_s: float = 60.0) -> None:
        self.work: Countdown | None = None
        self.closed_on: list[threading.Thread] = []
        self.failures: list[BaseException] = []
        self.worker = Worker(
            "rig",
            self.make,
            close=self.close,
            failed=self.failures.append,
            rest_after_s=rest_after_s,
        )
        self.worker.start()

    def make(self) -> Countdown:
        self.work = Countdown()
        return self.work

    def close(self) -> None:
        self.closed_on.append(threading.current_thread())

    def add(self, steps: int) -> None:
        assert self.work is not None
        self.work.left += steps

    def steps(self) -> int:
        assert self.work is not None
        return self.work.steps

    def rests(self) -> int:
        assert self.work is not None
        return self.work.rests


async def test_commands_run_in_order_on_the_thread_that_made_the_work() -> None:
    rig = Rig()
    seen: list[int] = []
    for number in range(50):
        rig.worker.submit(partial(seen.append, number))
    thread = await rig.worker.call(threading.current_thread)
    assert seen == list(range(50))
    assert rig.work is not None
    assert thread is rig.work.thread is not threading.current_thread()
    rig.worker.stop()
    await rig.worker.join()
    assert rig.closed_on == [thread]


async def test_it_works_until_idle_and_then_waits_for_commands() -> None:
    rig = Rig()
    await rig.worker.call(lambda: rig.add(5))
    while await rig.worker.call(lambda: rig.work is not None and not rig.work.idle):
        pass
    assert await rig.worker.call(rig.steps) == 5
    rig.worker.stop()
    await rig.worker.join()
    assert rig.failures == []


async def test_it_rests_once_until_the_next_command() -> None:
    rig = Rig(rest_after_s=0.0)
    for number in range(1, 20):
        assert await rig.worker.call(rig.rests) <= number
    assert rig.work is not None
    assert await asyncio.to_thread(rig.work.rested.wait, 10)
    busy = Rig()
    assert [await busy.worker.call(busy.rests) for _ in range(9)] == [0] * 9
    for worker in (rig.worker, busy.worker):
        worker.stop()
        await worker.join()


async def test_what_a_call_raises_is_the_callers_and_the_thread_goes_on() -> None:
    rig = Rig()

    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await rig.worker.call(fail)
    assert await rig.worker.call(lambda: 3) == 3
    rig.worker.stop()
    await rig.worker.join()
    assert rig.failures == []


async def test_a_failing_step_ends_the_thread_and_is_told() -> None:
    rig = Rig()
    rig.worker.submit(lambda: rig.add(20))
    await rig.worker.join()
    assert [str(f) for f in rig.failures] == ["thirteen"]
    assert len(rig.closed_on) == 1


async def test_a_caller_who_leaves_does_not_disturb_the_thread() -> None:
    rig = Rig()
    gate = threading.Event()
    waiting = asyncio.ensure_future(rig.worker.call(gate.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await rig.worker.call(lambda: "alive") == "alive"
    rig.worker.stop()
    await rig.worker.join()
