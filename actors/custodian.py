"""The custodian: sees to it that what is not needed leaves the disk."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TypeVar, assert_never

import msgspec

from greenroom.actors.custodian_messages import (
    Cleared,
    CustodianMessage,
    Erase,
    Freed,
    Rounds,
    Tidy,
    Wrote,
)
from greenroom.actors.keeper_messages import Doom, Drop, DropStates, KeeperMessage
from greenroom.actors.store_messages import Evict, Reach, Remove, StoreMessage, Survey, Unstored
from greenroom.actors.whole import whole
from greenroom.runtime.actor import Actor
from greenroom.runtime.census import Plan, plan
from greenroom.runtime.errors import Unavailable
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import MemorySettings
from greenroom.runtime.supersede import superseded
from greenroom.runtime.vault import Vault

T = TypeVar("T")
BATCH = 256
"""Segments that go at once: turns are committed in between."""
ROUND_S = 600.0
"""Seconds between two rounds when the store does not outgrow its quota."""


class Quota(msgspec.Struct, frozen=True):
    """What the settings say; see config/default.toml."""

    disk_bytes: int
    keep_branches_s: float


def quota_of(settings: MemorySettings) -> Quota:
    """The quota that the settings ask for."""
    return Quota(settings.disk_quota_mb << 20, settings.keep_branches_s)


class Custodian(Actor[CustodianMessage]):
    """Has the store forget segments and the keeper delete their files, in this order.

    Files are counted on ``pool``. A round runs at the start, when turns have outgrown the quota,
    and every ``ROUND_S`` seconds. ``window`` is the longest of the model's windows, 0 if none.
    """

    def __init__(
        self,
        store: Ref[StoreMessage],
        keeper: Ref[KeeperMessage],
        vault: Vault,
        pool: Executor,
        quota: Quota,
        window: int = 0,
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._vault = vault
        self._pool = pool
        self._quota = quota
        self._window = window
        self._room = 0  # bytes that may be written before the next round

    async def on_start(self) -> None:
        """Begin with a round, once the first messages have been seen to."""
        self.context.timer(0.0, Rounds())

    async def handle(self, message: CustodianMessage) -> object:
        """Do it, and say what is gone."""
        match message:
            case Erase(ids):
                return await whole(self._let_go(ids, Remove))
            case Tidy():
                return await whole(self._tidy())
            case Wrote(num_bytes):
                had = self._room
                self._room = -1 if num_bytes is None else had - num_bytes
                if self._room < 0 <= had:
                    await self._round()
            case Rounds():
                await self._round()
                self.context.timer(ROUND_S, Rounds())
            case _:
                assert_never(message)
        return None

    async def _round(self) -> None:
        """A disk that refuses is no reason to stop serving: the next round tries again."""
        try:
            await self._tidy()
        except (OSError, Unavailable) as error:
            self.context.log.warning("the store could not be cleared: %s", error)

    async def _let_go(self, ids: tuple[str, ...], order: type[Evict | Remove]) -> Freed:
        """Have the store forget segments, or only their bytes, and the keeper delete the files."""
        await self._keeper.ask(Doom(ids))
        gone = await self._store.ask(order(ids))
        return Freed(len(gone), await self._keeper.ask(Drop(gone)))

    async def _clear(self, ids: Iterable[str], order: type[Evict | Remove]) -> Freed:
        """The same for many, so that turns are committed in between."""
        freed = [await self._let_go(batch, order) for batch in _batches(ids)]
        return Freed(sum(f.num_segments for f in freed), sum(f.num_bytes for f in freed))

    async def _tidy(self) -> Cleared:
        reach = await self._store.ask(Survey())
        planned, superseded_ids = await self._off_loop(lambda: self._plan(reach))
        counted, going = planned.count, planned.clearance
        await self._clear(counted.missing, Evict)  # of what is hot or decoded of them, too
        freed = await self._sweep(going.strays, counted.unowned)
        collected = await self._clear(going.collected, Remove)
        evicted = await self._clear(going.evicted, Evict)
        freed += collected.num_bytes + evicted.num_bytes
        superseded_bytes = 0
        for ids in _batches(superseded_ids):
            superseded_bytes += await self._keeper.ask(DropStates(ids))
        freed += superseded_bytes
        left = counted.census.num_bytes - freed
        # At least a little: what pins and running turns hold may exceed the quota by itself.
        self._room = max(planned.quota - left, planned.quota // 20)
        cleared = Cleared(
            left,
            planned.quota,
            len(going.strays),
            collected.num_segments,
            evicted.num_segments,
            freed,
            len(superseded_ids),
            superseded_bytes,
        )
        if freed:
            self.context.log.info("the store was cleared: %s", cleared)
        return cleared

    def _plan(self, reach: Reach) -> tuple[Plan, tuple[str, ...]]:
        """What goes, and which segments' tails and states nobody needs."""
        quota = self._quota
        planned = plan(reach.rows, reach.held, self._vault, quota.disk_bytes, quota.keep_branches_s)
        states = planned.count.states
        if not states:
            return planned, ()
        ends = planned.count.census.heads.keys() | planned.count.census.held
        unneeded = superseded(reach.segments, ends, self._window)
        gone = {*planned.clearance.collected, *planned.clearance.evicted}
        return planned, tuple(each for each in states if each in unneeded and each not in gone)

    async def _sweep(self, paths: tuple[str, ...], unowned: dict[str, str]) -> int:
        """Remove strays. A file in a segment's place may be a turn's that is just ending."""
        freed = 0
        plain = [each for each in paths if each not in unowned]
        if plain:
            freed += await self._off_loop(lambda: self._vault.sweep(plain))
        for ids in _batches([unowned[each] for each in paths if each in unowned]):
            await self._keeper.ask(Doom(ids))
            freed += await self._keeper.ask(Drop(await self._store.ask(Unstored(ids))))
        return freed

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _batches(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Parts of at most ``BATCH``, in order: children come before their parents."""
    waiting = tuple(ids)
    for at in range(0, len(waiting), BATCH):
        yield waiting[at : at + BATCH]
