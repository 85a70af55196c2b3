"""The GPU actor: the only one that reaches MLX, through one thread that it owns."""

import asyncio
import functools
from collections.abc import Callable
from typing import assert_never

import mlx.core as mx
import msgspec

from greenroom.actors.gpu_messages import (
    Back,
    Count,
    Describe,
    Discard,
    Extend,
    Finish,
    Generate,
    GpuMessage,
    ModelFacts,
    Named,
    Promote,
)
from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import StageFailed
from greenroom.runtime.garbage import collect
from greenroom.runtime.host import release_memory
from greenroom.runtime.job import HotWanted, JobDone, JobEvent, JobRefused, JobWaits
from greenroom.runtime.stage import Stage
from greenroom.runtime.worker import Worker

Emit = Callable[[int, JobEvent], None]
Flush = Callable[[], None]
MakeStage = Callable[[Emit, Flush], tuple[Stage, ModelFacts]]
"""Loads the model and sets the stage, which flushes what it emits; called on the MLX thread."""


class Patience(msgspec.Struct, frozen=True):
    """How long things last: seconds.

    After ``rest_after_s`` without work, freed memory goes back to the system. A job waits
    ``memory_wait_s`` for memory at most.
    """

    rest_after_s: float
    memory_wait_s: float


class _Performance:
    """The stage, and the events of one step on their way to the event loop in one hop."""

    def __init__(
        self, make: MakeStage, deliver: Callable[[list[tuple[int, JobEvent]]], None]
    ) -> None:
        self._events: list[tuple[int, JobEvent]] = []
        self._deliver = deliver
        self.stage, self.facts = make(
            lambda uid, event: self._events.append((uid, event)), self.flush
        )

    def _emit(self, uid: int, event: JobEvent) -> None:
        self._events.append((uid, event))

    @property
    def idle(self) -> bool:
        return self.stage.idle

    def step(self) -> None:
        self.stage.step()
        self.flush()

    def rest(self) -> None:
        release_memory()

    def flush(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._deliver(events)


class GpuActor(Actor[GpuMessage]):
    """Owns the MLX thread and the reply channels of the jobs on stage.

    When the stage fails, every job on it ends with the retryable ``StageFailed`` and the actor
    crashes; its supervisor starts it anew, with the model loaded again.
    """

    def __init__(
        self,
        make: MakeStage,
        threads: list[Worker],
        patience: Patience,
        relieve: Callable[[int], object],
    ) -> None:
        """``threads`` are those of earlier generations; the list is shared by all of them.

        ``relieve`` is asked for so many bytes of what encoded segments take in memory.
        """
        self._make = make
        self._threads = threads
        self._patience = patience
        self._relieve = relieve
        self._replies: dict[int, Channel[JobEvent]] = {}
        self._worker: Worker | None = None
        self._performance: _Performance | None = None

    async def on_start(self) -> None:
        """Start the thread and load the model; raises what loading raises.

        First the last generation's thread must have let go of its model: there may not be room
        for two.
        """
        while self._threads:
            await self._threads[0].join()
            del self._threads[0]
        loop = asyncio.get_running_loop()
        # Without a result: whoever holds on to it must not hold the model.
        started: asyncio.Future[None] = loop.create_future()

        def deliver(events: list[tuple[int, JobEvent]]) -> None:
            loop.call_soon_threadsafe(self._deliver, events)

        def make() -> _Performance:
            made = _Performance(self._make, deliver)
            loop.call_soon_threadsafe(self._begun, started, made)
            return made

        def failed(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._failed, started, error)

        self._worker = Worker(
            "greenroom-mlx",
            make,
            close=_leave,
            failed=failed,
            rest_after_s=self._patience.rest_after_s,
        )
        self._threads.append(self._worker)
        self._worker.start()
        await started

    async def handle(self, message: GpuMessage) -> object:
        """Pass work to the thread; nothing here waits for it."""
        assert self._worker is not None
        assert self._performance is not None
        stage = self._performance.stage
        match message:
            case Generate(uid, job, reply):
                self._replies[uid] = reply
                reply.on_cancel(functools.partial(self._cancel, uid))
                self._worker.submit(functools.partial(stage.submit, uid, job))
            case Promote(uid):
                self._worker.submit(functools.partial(stage.promote, uid))
            case Extend(uid, tokens):
                self._order(lambda stage: stage.extend(uid, tokens))
            case Finish(uid, keep):
                self._order(lambda stage: stage.finish(uid, keep))
            case Named(uid, ids):
                self._order(lambda stage: stage.name(uid, ids))
            case Discard(ids):
                self._order(lambda stage: stage.discard(frozenset(ids)))
            case Back(backing):
                self._order(lambda stage: stage.back(backing))
            case Describe():
                return self._performance.facts
            case Count():
                return await self._worker.call(stage.count)
            case _:
                assert_never(message)
        return None

    async def on_stop(self) -> None:
        """End the thread; the jobs still on stage have been waited for or given up before."""
        if self._worker is not None:
            self._release()
            self._worker.stop()
            await self._worker.join()

    def on_crash(self, error: BaseException) -> None:
        """Tell everybody on stage, and let the thread go."""
        for reply in self._replies.values():
            reply.fail(StageFailed(f"the stage failed ({type(error).__name__}); try again"))
        self._release()
        if self._worker is not None:
            self._worker.stop()

    def _release(self) -> None:
        # The thread's own reference must be the last: arrays are freed where they were made.
        self._replies = {}
        self._performance = None

    def _order(self, order: Callable[[Stage], None]) -> None:
        """Have the stage do something that its next step need not wait to tell of."""

        def run() -> None:
            performance = self._performance  # the event loop may let go of it meanwhile
            if performance is not None:
                order(performance.stage)
                performance.flush()

        if self._worker is not None:
            self._worker.submit(run)

    def _cancel(self, uid: int) -> None:
        if self._replies.pop(uid, None) is not None and self._worker and self._performance:
            self._worker.submit(functools.partial(self._performance.stage.cancel, uid))

    def _deliver(self, events: list[tuple[int, JobEvent]]) -> None:
        for uid, event in events:
            if isinstance(event, HotWanted):
                self._relieve(event.num_bytes)
                continue
            reply = self._replies.get(uid)
            if reply is None:
                continue
            match event:
                case JobWaits():
                    self._be_patient(uid)
                case JobRefused(error):
                    del self._replies[uid]
                    reply.fail(error)
                case JobDone():
                    del self._replies[uid]
                    reply.send_nowait(event)
                    reply.close()
                case _:
                    reply.send_nowait(event)

    def _be_patient(self, uid: int) -> None:
        """A job waits for memory, but not for ever."""
        wait_s = self._patience.memory_wait_s
        loop = asyncio.get_running_loop()
        loop.call_later(wait_s, self._order, lambda stage: stage.refuse(uid, wait_s))

    def _begun(self, started: "asyncio.Future[None]", made: _Performance) -> None:
        if not started.done():
            self._performance = made
            started.set_result(None)

    def _failed(self, started: "asyncio.Future[None]", error: BaseException) -> None:
        if started.done():
            self.context.fail(error)
        else:
            started.set_exception(error)


def _leave() -> None:
    """Give back all that the model took, where it was taken."""
    collect()  # a stage is full of cycles
    mx.clear_streams()
    release_memory()
