"""A thread that owns something no other thread may touch, and works on it between commands."""

import asyncio
import atexit
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Command = Callable[[], object]
LEAVE_S = 30.0
"""How long the end of the process waits for a step that runs: a long prompt's chunk, or a load."""


class Work(Protocol):
    """What the thread does between commands."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until the next command."""

    def step(self) -> None:
        """Do a bounded piece of work."""

    def rest(self) -> None:
        """Called once when it has been idle for a while."""


class Worker:
    """Runs commands in order of submission, and steps its work while that is not idle.

    ``make`` builds the work on the thread, ``close`` undoes it there; an error that escapes a step
    or a command ends the thread and goes to ``failed``, which is called on it. After
    ``rest_after_s`` seconds without a command or a step the work may ``rest``.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Work],
        *,
        close: Command,
        failed: Callable[[BaseException], object],
        rest_after_s: float,
    ) -> None:
        self._make = make
        self._close = close
        self._failed = failed
        self._rest_after_s = rest_after_s
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; commands wait until the work is made.

        A process that ends without ``stop`` ends the thread first: one that comes back from C++
        into an interpreter that is no more is torn down there, and takes the process with it.
        """
        atexit.register(self._leave)
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Run ``command`` on the thread before its next step. From any thread."""
        self._commands.put(command)

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` on the thread and wait for what it returns or raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:  # the caller's to handle, not the thread's
                loop.call_soon_threadsafe(_settle, answer, None, error)
            else:
                loop.call_soon_threadsafe(_settle, answer, result, None)

        self.submit(run)
        return await answer

    def stop(self) -> None:
        """End the thread after the commands that were submitted before. From any thread."""
        self._commands.put(None)

    async def join(self) -> None:
        """Wait until the thread has ended."""
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        atexit.unregister(self._leave)

    def _leave(self) -> None:
        self.stop()
        self._thread.join(LEAVE_S)

    def _run(self) -> None:
        work: Work | None = None
        try:
            work = self._make()
            while self._obey(work, block=work.idle):
                if not work.idle:
                    work.step()
        except BaseException as error:
            self._failed(error)
        finally:
            del self._make
            work = None  # what it holds is freed here, before its thread closes
            self._close()

    def _obey(self, work: Work, *, block: bool) -> bool:
        """Run the waiting commands (at least one, if ``block``); False when told to stop."""
        while block or not self._commands.empty():
            command = self._next(work)
            if command is None:
                return False
            command()
            block = False
        return True

    def _next(self, work: Work) -> Command | None:
        try:
            return self._commands.get(timeout=self._rest_after_s)
        except Empty:
            work.rest()
            return self._commands.get()


def _settle(answer: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
