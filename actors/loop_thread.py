"""An event loop on a thread of its own, for those who have none or are inside of another."""

import asyncio
import atexit
import ctypes
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from greenroom.runtime.errors import Unavailable

T = TypeVar("T")


class LoopThread:
    """Runs coroutines to their end while the calling thread waits: ``with LoopThread() as loop``.

    A KeyboardInterrupt in the waiting thread cancels what it waits for. It may be used from several
    threads at once, and also where an event loop runs (a notebook), which then waits too. A process
    that ends within the block abandons what runs there: Python starts no thread any more, and so
    nothing can be closed in good order.
    """

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="greenroom-loop", daemon=True)
        self._abandoned = False

    def __enter__(self) -> Self:
        atexit.register(self._abandon)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        atexit.unregister(self._abandon)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait here. Raises what it raises, and Unavailable once the process has
        begun to end."""
        if self._abandoned:
            work.close()
            raise Unavailable("the process is ending")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except BaseException:
            # Interrupted here, at whatever moment, or failed there; then this changes nothing.
            self._loop.call_soon_threadsafe(_give_up, work)
            raise

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The same for an iterator; leaving the loop closes it there."""
        running: set[asyncio.Task[Any]] = set()
        try:
            while True:
                try:
                    item = self.run(_next(source, running))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            aclose = getattr(source, "aclose", None)
            if aclose is not None and not self._abandoned:
                self.run(_close(aclose, running))

    @contextmanager
    def holding(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter an async context manager there, and leave it, in one task, at the block's end."""
        inside: Future[T] = Future()
        leave = asyncio.Event()

        async def hold() -> None:
            async with manager as value:
                inside.set_result(value)
                await leave.wait()

        held = asyncio.run_coroutine_threadsafe(hold(), self._loop)
        try:
            either: tuple[Future[Any], ...] = (inside, held)
            wait(either, return_when=FIRST_COMPLETED)
            if not inside.done():
                held.result()  # raises what entering raised
            yield inside.result()
        except BaseException:
            if not inside.done():
                held.cancel()
            raise
        finally:
            if not self._abandoned:
                self._loop.call_soon_threadsafe(leave.set)
                wait((held,))
        held.result()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _abandon(self) -> None:
        self._abandoned = True
        self._stop()
        # What was at work stays as it is until the process is no more: taken apart by a dying
        # interpreter, each coroutine would complain that it cannot go on.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(asyncio.all_tasks(self._loop)))

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            if not self._abandoned:
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.close()


def _give_up(work: Coroutine[Any, Any, object]) -> None:
    """Cancel its task, if it has become one."""
    for task in asyncio.all_tasks():
        if task.get_coro() is work:
            task.cancel()
            return
    work.close()


async def _next(source: AsyncIterator[T], running: set[asyncio.Task[Any]]) -> T:
    task = asyncio.current_task()
    assert task is not None
    running.add(task)
    task.add_done_callback(running.discard)
    return await anext(source)


async def _close(aclose: Callable[[], Awaitable[object]], running: set[asyncio.Task[Any]]) -> None:
    if running:  # whoever waited was interrupted; its wait here is being cancelled
        await asyncio.wait(running)
    await aclose()
