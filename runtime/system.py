"""The system: the root of all actors."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from greenroom.runtime.activation import stop_all
from greenroom.runtime.actor import LOGGER, Actor
from greenroom.runtime.cell import Cell
from greenroom.runtime.clock import Clock, LoopClock
from greenroom.runtime.deadletters import DeadLetters
from greenroom.runtime.errors import ActorStopped
from greenroom.runtime.inspect import SystemInfo, system_info
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.props import STOP_DEADLINE_S, Props
from greenroom.runtime.ref import Ref
from greenroom.runtime.registry import Registry
from greenroom.runtime.state import State
from greenroom.runtime.supervise import Supervision

M = TypeVar("M")

# How long a killed actor's cancelled code may take to let go before it is left behind.
LET_GO_S = 5.0


class System:
    """Actors on one event loop: ``async with System() as system: …``.

    ``resolver`` gives the Props for a name that is not in memory, or None; ``get`` and messages
    by name bring such an actor to life. ``seed`` fixes the jitter of backoffs. Leaving the block
    shuts down, gracefully for at most ``shutdown_s`` seconds.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        resolver: Callable[[str], Props | None] | None = None,
        seed: int | None = None,
        shutdown_s: float = 10.0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock: Clock = clock or LoopClock(self.loop)
        self.now: Callable[[], float] = self.loop.time if clock is None else clock.now
        self.wakes = 0  # how many activations have begun
        self.dead_letters = DeadLetters()
        self.registry = Registry(self)
        self.failure: asyncio.Future[BaseException] = self.loop.create_future()
        self._resolver = resolver
        self._random = random.Random(seed)
        self._shutdown_s = shutdown_s
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.shutdown(self._shutdown_s)

    def spawn(
        self,
        name: str,
        factory: Callable[[], Actor[M]],
        *,
        supervision: Supervision | None = None,
        mailbox: MailboxSpec | None = None,
        passivate_after_s: float | None = None,
        time_to_live_s: float | None = None,
        identity: object = None,
    ) -> Ref[M]:
        """A new top-level actor; ``factory`` makes an instance for every generation.

        Its ``on_start`` runs soon, before its first message. The other arguments are those of
        Props. Raises InvalidRequest (name), NameTaken, ActorStopped (shutting down).
        """
        props = Props.of(factory, supervision, mailbox, passivate_after_s, time_to_live_s, identity)
        return Ref(self.registry.spawn(name, props, None))

    def spawn_or_get(
        self,
        name: str,
        factory: Callable[[], Actor[M]],
        *,
        supervision: Supervision | None = None,
        mailbox: MailboxSpec | None = None,
        passivate_after_s: float | None = None,
        time_to_live_s: float | None = None,
        identity: object = None,
    ) -> Ref[M]:
        """The top-level actor of that name, spawned if there is none; atomic.

        Raises NameTaken when it lives with another ``identity``, else as ``spawn``.
        """
        props = Props.of(factory, supervision, mailbox, passivate_after_s, time_to_live_s, identity)
        return Ref(self.registry.spawn_or_get(name, props, None))

    def get(self, path: str) -> Ref[Any] | None:
        """The actor of that path: living, asleep, or brought to life by the resolver."""
        cell = self.registry.find(path)
        if cell is None and self._resolver is not None and not self.registry.closed:
            props = self._resolver(path)
            if props is not None:
                cell = self.registry.spawn_or_get(path, props, None)
        return None if cell is None else Ref(cell)

    async def stop(
        self, ref: Ref[Any], deadline_s: float = STOP_DEADLINE_S, *, drain: bool = True
    ) -> bool:
        """Stop gracefully: what is queued is handled (or dropped without ``drain``), children
        stop, ``on_stop`` runs; after ``deadline_s`` seconds it is killed. True if it was graceful.
        """
        cell = ref.cell
        timer = self.clock.call_later(deadline_s, cell.kill)
        cell.begin_stop(drain=drain)
        try:
            await self._gone([cell], deadline_s)
        finally:
            timer.cancel()
        return cell.reason == "stopped"

    async def kill(self, ref: Ref[Any]) -> None:
        """Kill: no draining, no ``on_stop``; returns when it is gone."""
        ref.cell.kill()
        await self._gone([ref.cell], 0.0)

    async def shutdown(self, deadline_s: float = 10.0) -> bool:
        """Stop all, newest top-level actor first; kill what is left after ``deadline_s`` seconds.
        True if nothing had to be killed. No top-level actor can be spawned any more."""
        self.registry.closed = True
        cells = list(self.registry.top)
        timer = self.clock.call_later(deadline_s, _kill_all, cells)
        work = self.loop.create_task(stop_all(cells, together=False))
        try:
            await self._gone(cells, deadline_s)
        finally:
            timer.cancel()
            work.cancel()
        return all(cell.reason == "stopped" for cell in cells)

    def inspect(self) -> SystemInfo:
        """Every actor's state, mailbox, restarts and current message; and the dead letters."""
        return system_info(self)

    # -- the kernel's side

    def submit(self, work: Callable[..., object], *args: Any) -> None:
        """Run ``work(*args)`` on the loop, from any thread, in order of submission."""
        # A queue of our own keeps the order whatever order the loop runs its callbacks in.
        self._inbox.append((work, args))
        try:
            self.loop.call_soon_threadsafe(self._run_inbox)
        except RuntimeError as error:
            raise ActorStopped("the system", "has gone with its event loop") from error

    def spread(self) -> float:
        """Random in [0, 1), for backoff."""
        return self._random.random()

    def escalate(self, path: str, error: BaseException) -> None:
        """A top-level failure that no supervisor took: ``failure`` is for the application."""
        LOGGER.critical("%s escalated %s", path, type(error).__name__, extra={"actor": path})
        if not self.failure.done():
            self.failure.set_result(error)

    def _run_inbox(self) -> None:
        while self._inbox:
            work, args = self._inbox.popleft()
            work(*args)

    async def _gone(self, cells: list[Cell], deadline_s: float) -> None:
        gone = self.loop.create_future()
        timer = self.clock.call_later(deadline_s + LET_GO_S, _give_up, gone)
        waiting = [self.loop.create_task(cell.ended()) for cell in cells]
        try:
            for wait in waiting:
                wait.add_done_callback(lambda _: _check(waiting, gone))
            if waiting:
                await gone
        finally:
            timer.cancel()
            for wait in waiting:
                wait.cancel()
        for cell in cells:
            if cell.state is not State.STOPPED:
                LOGGER.error("%s ignores its cancellation; left behind", cell.path)


def _kill_all(cells: list[Cell]) -> None:
    for cell in cells:
        cell.kill()


def _give_up(gone: asyncio.Future[None]) -> None:
    if not gone.done():
        gone.set_result(None)


def _check(waiting: list[asyncio.Task[None]], gone: asyncio.Future[None]) -> None:
    if all(wait.done() for wait in waiting):
        _give_up(gone)
