"""What one writes: an actor, and what it is given to act with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from greenroom.runtime.envelope import Envelope
from greenroom.runtime.errors import ActorStopped
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.props import Props
from greenroom.runtime.ref import Ref
from greenroom.runtime.supervise import Supervision

if TYPE_CHECKING:
    from greenroom.runtime.cell import Cell
    from greenroom.runtime.clock import Timer
    from greenroom.runtime.system import System

M = TypeVar("M")
N = TypeVar("N")

LOGGER = logging.getLogger("greenroom.actor")


class Actor(Generic[M]):
    """One state, one message at a time. Subclasses keep their state as ordinary attributes.

    ``children_stop``: children stop one after another, newest first, or all ``together``.
    """

    children_stop: ClassVar[Literal["reversed", "together"]] = "reversed"
    context: Context[M]

    async def on_start(self) -> None:
        """Runs before the first message of a generation; a failure counts as a crash."""

    async def handle(self, message: M) -> object:
        """Handle one message; what it returns answers an ``ask``.

        It may return a future: the actor takes its next message, and whoever asked gets what
        becomes of the future. End it with the generation: one that is cancelled is a failure.

        It may take minutes. It is cancelled (CancelledError) when the asker or the reader of the
        message's reply channel leaves, and on kill; the actor then goes on with the next message.
        """
        raise NotImplementedError

    async def on_stop(self) -> None:
        """Runs last on a graceful stop and before a passivation: the place to persist."""

    def on_crash(self, error: BaseException) -> None:
        """Runs when this instance is given up (failure, kill): let go of threads, files, memory.

        Nothing else of the instance runs afterwards; it must not block.
        """


class Context(Generic[M]):
    """An actor's surroundings. It belongs to one generation: after a restart the old one is void,
    so a timer or a thread of the old generation cannot reach the new one."""

    __slots__ = ("_cell", "_tasks", "_timers", "generation")

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self.generation = cell.generation
        self._timers: set[Timer] | None = None
        self._tasks: set[asyncio.Task[None]] | None = None

    @property
    def self_ref(self) -> Ref[M]:
        """The actor's own reference."""
        return Ref(self._cell)

    @property
    def system(self) -> System:
        """The system it lives in."""
        return self._cell.system

    @property
    def alive(self) -> bool:
        """This generation still acts."""
        return self._cell.context is self

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that adds ``actor`` and ``generation`` to each record."""
        return _ActorLog(LOGGER, {"actor": self._cell.path, "generation": self.generation})

    def spawn(
        self,
        name: str,
        factory: Callable[[], Actor[N]],
        *,
        supervision: Supervision | None = None,
        mailbox: MailboxSpec | None = None,
        passivate_after_s: float | None = None,
        time_to_live_s: float | None = None,
        identity: object = None,
    ) -> Ref[N]:
        """Spawn a child, supervised by this actor and stopped with it. As ``System.spawn``."""
        self._check_alive()
        props = Props.of(factory, supervision, mailbox, passivate_after_s, time_to_live_s, identity)
        return Ref(self._cell.system.registry.spawn(name, props, self._cell))

    def spawn_or_get(
        self,
        name: str,
        factory: Callable[[], Actor[N]],
        *,
        supervision: Supervision | None = None,
        mailbox: MailboxSpec | None = None,
        passivate_after_s: float | None = None,
        time_to_live_s: float | None = None,
        identity: object = None,
    ) -> Ref[N]:
        """The child of that name, spawned if need be. As ``System.spawn_or_get``."""
        self._check_alive()
        props = Props.of(factory, supervision, mailbox, passivate_after_s, time_to_live_s, identity)
        return Ref(self._cell.system.registry.spawn_or_get(name, props, self._cell))

    def watch(self, ref: Ref[Any]) -> None:
        """Have a ``Terminated`` handled when that actor is gone, at once if it is gone already."""
        self._check_alive()
        self._cell.watch(ref.cell)

    def unwatch(self, ref: Ref[Any]) -> None:
        """Forget a ``watch``."""
        self._cell.unwatch(ref.cell)

    def timer(self, delay_s: float, message: M) -> Timer:
        """Send itself a message after ``delay_s`` seconds, unless this generation ends first.

        A timer does not keep an actor from being passivated. Beyond the mailbox's capacity.
        """
        self._check_alive()
        timers = self._timers = self._timers or set()
        box: list[Timer] = []
        timer = self._cell.system.clock.call_later(delay_s, self._ring, message, box)
        box.append(timer)
        timers.add(timer)
        return timer

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the mailbox. It ends with the generation; its failure is the
        actor's failure."""
        if not self.alive:
            work.close()
            self._check_alive()
        tasks = self._tasks = self._tasks or set()
        task = self._cell.system.loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(self._background_done)

    def stop(self) -> None:
        """Stop itself gracefully, once the messages queued so far have been handled."""
        self._check_alive()
        self._cell.begin_stop()

    def post(self, message: M) -> None:
        """Send itself a message, from any thread, in order, beyond the mailbox's capacity.

        For the events of a worker thread; after this generation's end it makes a dead letter.
        """
        self._cell.system.submit(self._post, message)

    def fail(self, error: BaseException) -> None:
        """Crash this generation from any thread, as if ``handle`` had raised ``error``.

        It overtakes the mailbox; a handler that runs is cancelled and its asker gets the error.
        """
        self._cell.system.submit(self._fail, error)

    # -- the kernel's side

    def end(self) -> None:
        """The generation is over: drop its timers and its background work."""
        for timer in self._timers or ():
            timer.cancel()
        for task in self._tasks or ():
            task.cancel()
        self._timers = None

    @property
    def busy(self) -> bool:
        """Background work is running."""
        return bool(self._tasks)

    def _check_alive(self) -> None:
        if not self.alive:
            raise ActorStopped(self._cell.path, "has begun another generation or stopped")

    def _ring(self, message: M, box: list[Timer]) -> None:
        if self.alive:
            if self._timers is not None:
                self._timers.difference_update(box)
            self._cell.post_to_self(message)

    def _post(self, message: M) -> None:
        if self.alive:
            self._cell.post_to_self(message)
        else:
            self._cell.dead_letter(Envelope(message), "stale")

    def _fail(self, error: BaseException) -> None:
        if self.alive:
            self._cell.fail(error)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)


class _ActorLog(logging.LoggerAdapter[logging.Logger]):
    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs
