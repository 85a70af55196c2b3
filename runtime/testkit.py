"""The test kit: virtual time, seeded schedules, probes. No test has to sleep.

``run(main, seed=…)`` runs a coroutine on a loop whose time is virtual (it jumps to the next timer
when nothing is ready) and whose ready tasks run in an order drawn from the seed. A wait that
nothing can end raises DeadlockError instead of hanging.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from greenroom.runtime.actor import Actor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenroom.runtime.deadletters import DeadLetter
    from greenroom.runtime.ref import Ref
    from greenroom.runtime.system import System

T = TypeVar("T")
M = TypeVar("M")


class DeadlockError(Exception):
    """Nothing is ready, no timer is set and the test is not over: it would hang for ever."""


class _Selector:
    """Stands where an event loop waits for input: instead of waiting, time jumps."""

    def __init__(self, loop: DeterministicLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.before_step(timeout)
        return []


class DeterministicLoop(asyncio.BaseEventLoop):
    """An event loop without input: virtual time, and a schedule that only the seed decides.

    ``seed`` None keeps asyncio's own first-in-first-out order. Threads and sockets do not belong
    here: use a real loop and ``VirtualClock`` for actors that own a thread.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._virtual_now = 0.0
        self._order = None if seed is None else random.Random(seed)
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual_now

    def before_step(self, timeout: float | None) -> None:
        """Called before every round of ready callbacks."""
        if timeout is None:
            raise DeadlockError(f"at {self._virtual_now:g} s nothing can happen any more")
        if timeout > 0:
            # A little more than asked: the sum may round to just below the timer's time.
            self._virtual_now += timeout + 1e-9
        ready: deque[Any] = self.__dict__["_ready"]  # asyncio's own, which its stubs leave out
        if self._order is not None and len(ready) > 1:
            shuffled = list(ready)
            self._order.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody to wake up: one thread."""


def run(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int | None = None) -> T:
    """Run ``main()`` on a DeterministicLoop, to the end."""
    with asyncio.Runner(loop_factory=lambda: DeterministicLoop(seed)) as runner:
        return runner.run(main())


class _Alarm:
    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A Clock moved by hand, for tests on a real loop."""

    def __init__(self) -> None:
        self._now = 0.0
        self._tick = itertools.count()
        self._alarms: list[tuple[float, int, _Alarm]] = []

    def now(self) -> float:
        """Virtual seconds."""
        return self._now

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> _Alarm:
        """Run ``callback(*args)`` when ``advance`` comes by."""
        alarm = _Alarm(callback, args)
        heapq.heappush(self._alarms, (self._now + max(0.0, delay_s), next(self._tick), alarm))
        return alarm

    async def sleep(self, delay_s: float) -> None:
        """Suspend the calling task until ``advance`` comes by."""
        awake = asyncio.get_running_loop().create_future()
        alarm = self.call_later(delay_s, _resolve, awake)
        try:
            await awake
        finally:
            alarm.cancel()

    async def advance(self, seconds: float, *, rounds: int = 10) -> None:
        """Move on, firing what falls due in order; after each the loop gets ``rounds`` rounds."""
        target = self._now + seconds
        while self._alarms and self._alarms[0][0] <= target:
            self._now, _, alarm = heapq.heappop(self._alarms)
            callback, alarm.callback = alarm.callback, None
            if callback is not None:
                callback(*alarm.args)
                await settle(rounds)
        self._now = target
        await settle(rounds)


async def settle(rounds: int = 10) -> None:
    """Let everything that is ready run, ``rounds`` times over."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class _ProbeActor(Actor[M]):
    def __init__(self, probe: Probe[M]) -> None:
        self._probe = probe

    async def handle(self, message: M) -> object:
        self._probe.received.append(message)
        self._probe.arrived()
        return self._probe.answer(message)


class Probe(Generic[M]):
    """An actor of the test's: it remembers what it is told and answers as it is told to."""

    def __init__(
        self,
        system: System,
        name: str = "probe",
        answer: Callable[[M], object] = lambda message: None,
    ) -> None:
        self.received: deque[M] = deque()
        self.answer = answer
        self._waiter: asyncio.Future[None] | None = None
        self.ref: Ref[M] = system.spawn(name, lambda: _ProbeActor[M](self))

    def arrived(self) -> None:
        """A message has been received."""
        if self._waiter is not None:
            _resolve(self._waiter)

    def watch(self, ref: Ref[Any]) -> None:
        """Receive a Terminated when ``ref``'s actor is gone."""
        self.ref.cell.watch(ref.cell)

    async def expect(self, kind: type[T]) -> T:
        """The next message, which must be a ``kind``. On a DeterministicLoop, one that never
        comes raises DeadlockError."""
        while not self.received:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self.received.popleft()
        if not isinstance(message, kind):
            raise AssertionError(f"expected a {kind.__name__}, got {message!r}")
        return message

    async def expect_nothing(self, seconds: float = 1.0) -> None:
        """Nothing must come within ``seconds`` of the loop's (virtual) time."""
        await asyncio.sleep(seconds)
        if self.received:
            raise AssertionError(f"expected nothing, got {self.received[0]!r}")


@contextmanager
def expect_dead_letters(system: System, *kinds: type) -> Iterator[list[DeadLetter]]:
    """Within the block exactly these types of messages become dead letters, in this order.

    The list is filled when the block ends.
    """
    system.dead_letters.take()
    found: list[DeadLetter] = []
    yield found
    found.extend(system.dead_letters.take())
    got = [type(letter.message) for letter in found]
    if got != list(kinds):
        raise AssertionError(f"expected dead letters {list(kinds)}, got {got}")


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
