"""The scribe: the ledger off the event loop, one operation at a time."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from greenroom.runtime.ledger import Ledger, SceneRow
from greenroom.runtime.scenario import Scenario
from greenroom.runtime.transcript import Entry

T = TypeVar("T")


class Scribe:
    """What ``Ledger`` does, awaited. Owns the thread, not the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="greenroom-ledger")

    async def create(self, namespace: str, scenario: Scenario, uid: str) -> SceneRow:
        return await self._run(partial(self._ledger.create, namespace, scenario, uid))

    async def find(self, namespace: str, name: str) -> SceneRow | None:
        return await self._run(partial(self._ledger.find, namespace, name))

    async def list(self, namespace: str) -> tuple[SceneRow, ...]:
        return await self._run(partial(self._ledger.list, namespace))

    async def append(self, uid: str, entries: Sequence[Entry]) -> None:
        await self._run(partial(self._ledger.append, uid, entries))

    async def read(self, uid: str) -> tuple[Entry, ...]:
        return await self._run(partial(self._ledger.read, uid))

    async def delete(self, uid: str) -> None:
        await self._run(partial(self._ledger.delete, uid))

    async def close(self) -> None:
        """Let the thread go, once it has written everything."""
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
