"""Group commit: changes of the index that come while one transaction is synced share the next."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

import msgspec

from greenroom.actors.agent_messages import AgentKey
from greenroom.runtime.index import Index

MOST = 256
"""Changes in one transaction: its first waits for its last."""
Background = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine beside the mailbox, for as long as the actor's generation lasts."""


class Change(msgspec.Struct, frozen=True):
    """A change of what the index holds about the agent ``key``.

    ``write`` makes it there, as a transaction of its own, on the index's thread. ``settle`` is
    called once it is durable, and gives the answer to whoever asked for it.
    """

    key: AgentKey
    write: Callable[[], object]
    settle: Callable[[], object]


class GroupCommit:
    """Changes on their way to the index, written in the order in which they came.

    One that comes alone is written at once; none is answered before it is durable.
    """

    def __init__(self, index: Index, thread: Executor, background: Background) -> None:
        self._index = index
        self._thread = thread
        self._background = background
        self._waiting: list[tuple[Change, asyncio.Future[object]]] = []
        self._open: dict[AgentKey, asyncio.Future[object]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, change: Change) -> "asyncio.Future[object]":
        """What becomes of a change: its answer, or what writing it raises.

        No other change of its key may be under way: see ``clear``.
        """
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, answer))
        self._open[change.key] = answer
        if self._idle.is_set():
            self._idle.clear()
            self._background(self._write())
        return answer

    async def clear(self, *keys: AgentKey) -> None:
        """Wait until no change of these agents is under way."""
        for key in keys:
            if key in self._open:
                await asyncio.wait([self._open[key]])

    async def settled(self) -> None:
        """Wait until no change is under way."""
        await self._idle.wait()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                group = self._waiting[:MOST]
                work = [change.write for change, _ in group]
                outcomes = await loop.run_in_executor(self._thread, self._index.together, work)
                for (change, answer), error in zip(group, outcomes, strict=True):
                    self._end(change, answer, error)
                del self._waiting[: len(group)]
        finally:
            for answer in self._open.values():  # this generation is over
                answer.cancel()
            self._open.clear()
            self._idle.set()

    def _end(
        self, change: Change, answer: "asyncio.Future[object]", error: Exception | None
    ) -> None:
        if error is None:
            answer.set_result(change.settle())
        else:
            answer.set_exception(error)
        del self._open[change.key]
