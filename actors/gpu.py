"""The GPU actor: the only one that reaches MLX, through one thread that it owns."""

import asyncio
import functools
from collections.abc import Callable
from typing import assert_never

import mlx.core as mx

from greenroom.actors.messages import (
    Count,
    Describe,
    Finish,
    Generate,
    GpuMessage,
    ModelFacts,
    Promote,
    Room,
)
from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import StageFailed
from greenroom.runtime.host import release_memory
from greenroom.runtime.job import JobDone, JobEvent
from greenroom.runtime.stage import Stage
from greenroom.runtime.worker import Worker

Emit = Callable[[int, JobEvent], None]
MakeStage = Callable[[Emit], tuple[Stage, ModelFacts]]
"""Loads the model and sets the stage; called on the MLX thread."""


class _Performance:
    """The stage, and the events of one step on their way to the event loop in one hop."""

    def __init__(
        self, make: MakeStage, deliver: Callable[[list[tuple[int, JobEvent]]], None]
    ) -> None:
        self._events: list[tuple[int, JobEvent]] = []
        self._deliver = deliver
        self.stage, self.facts = make(lambda uid, event: self._events.append((uid, event)))

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

    def __init__(self, make: MakeStage, threads: list[Worker], rest_after_s: float) -> None:
        """``threads`` are those of earlier generations; the list is shared by all of them.

        After ``rest_after_s`` seconds without work, freed memory goes back to the system.
        """
        self._make = make
        self._threads = threads
        self._rest_after_s = rest_after_s
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
        started: asyncio.Future[_Performance] = loop.create_future()

        def deliver(events: list[tuple[int, JobEvent]]) -> None:
            loop.call_soon_threadsafe(self._deliver, events)

        def make() -> _Performance:
            made = _Performance(self._make, deliver)
            loop.call_soon_threadsafe(_resolve, started, made)
            return made

        def failed(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._failed, started, error)

        self._worker = Worker(
            "greenroom-mlx",
            make,
            close=mx.clear_streams,
            failed=failed,
            rest_after_s=self._rest_after_s,
        )
        self._threads.append(self._worker)
        self._worker.start()
        self._performance = await started

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
            case Finish(uid, keep):
                self._worker.submit(functools.partial(self._finish, uid, keep))
            case Room(num_bytes):
                self._worker.submit(functools.partial(stage.make_room, num_bytes))
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

    def _finish(self, uid: int, keep: int) -> None:
        if self._performance is not None:
            self._performance.stage.finish(uid, keep)
            self._performance.flush()

    def _cancel(self, uid: int) -> None:
        if self._replies.pop(uid, None) is not None and self._worker and self._performance:
            self._worker.submit(functools.partial(self._performance.stage.cancel, uid))

    def _deliver(self, events: list[tuple[int, JobEvent]]) -> None:
        for uid, event in events:
            reply = self._replies.get(uid)
            if reply is None:
                continue
            reply.send_nowait(event)
            if isinstance(event, JobDone):
                del self._replies[uid]
                reply.close()

    def _failed(self, started: "asyncio.Future[_Performance]", error: BaseException) -> None:
        if started.done():
            self.context.fail(error)
        else:
            started.set_exception(error)


def _resolve(started: "asyncio.Future[_Performance]", made: _Performance) -> None:
    if not started.done():
        started.set_result(made)
