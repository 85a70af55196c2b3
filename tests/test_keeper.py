"""The keeper: bytes from memory or disk, and never a bad one, on a real vault."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from greenroom.actors.fetching import fetch
from greenroom.actors.keeper import Keeper
from greenroom.actors.keeper_messages import Doom, Drop, Keep, KeeperMessage, Settle, Warm, Weigh
from greenroom.runtime.codec import Payload
from greenroom.runtime.ref import Ref
from greenroom.runtime.segments import Segment, make_segment
from greenroom.runtime.spec import CacheSpec
from greenroom.runtime.system import System
from greenroom.runtime.vault import Vault
from tests.test_vault import SPEC, sample

Scenario = Callable[[Ref[KeeperMessage]], Coroutine[Any, Any, None]]


def keeping(
    root: Path,
    scenario: Scenario,
    spec: CacheSpec = SPEC,
    vault: Vault | None = None,
    gone: Callable[[tuple[str, ...]], object] = lambda ids: None,
) -> None:
    """Run a scenario against a keeper of the store below ``root``, which starts with none hot."""
    kept = vault or Vault(root)

    async def main(pool: ThreadPoolExecutor) -> None:
        async with System() as system:
            keeper = partial(Keeper, kept, spec, 1 << 20, pool, gone=gone)
            await scenario(system.spawn("keeper", keeper))

    with ThreadPoolExecutor(2) as pool:
        uvloop.run(main(pool))


def test_what_is_kept_is_fetched_hot_and_cold(tmp_path: Path) -> None:
    segment, payload = sample()

    async def keep(keeper: Ref[KeeperMessage]) -> None:
        assert await keeper.ask(Keep(((segment, payload),)))
        assert (await fetch(keeper, (segment.id,))).payloads == (payload,)

    async def reopened(keeper: Ref[KeeperMessage]) -> None:
        fetched = await fetch(keeper, (segment.id,))
        assert fetched.bad is None
        assert fetched.payloads[0].arrays.keys() == payload.arrays.keys()

    keeping(tmp_path, keep)
    keeping(tmp_path, reopened)


def test_the_bytes_that_were_written_first_stay(tmp_path: Path) -> None:
    segment, payload = sample()
    later = msgspec.structs.replace(payload, arrays={k: a * 0 for k, a in payload.arrays.items()})

    async def twice(keeper: Ref[KeeperMessage]) -> None:
        assert await keeper.ask(Keep(((segment, payload),)))

    async def again(keeper: Ref[KeeperMessage]) -> None:
        assert not await keeper.ask(Keep(((segment, later),)))
        (fetched,) = (await fetch(keeper, (segment.id,))).payloads
        assert all((fetched.arrays[k] == a).all() for k, a in payload.arrays.items())

    keeping(tmp_path, twice)
    keeping(tmp_path, again)


def test_payloads_are_given_up_to_the_first_bad_one(tmp_path: Path) -> None:
    good, payload = sample()
    lost = make_segment(
        parent=good.id,
        start=good.end,
        tokens=[1],
        kind="prompt",
        namespace="n",
        fingerprint="f",
        codec=payload.codec,
    )

    async def scenario(keeper: Ref[KeeperMessage]) -> None:
        await keeper.ask(Keep(((good, payload),)))
        fetched = await fetch(keeper, (good.id, lost.id))
        assert (len(fetched.payloads), fetched.bad) == (1, lost.id)

    keeping(tmp_path, scenario)


def test_a_payload_of_another_shape_is_bad_and_its_file_stays(tmp_path: Path) -> None:
    segment, payload = sample()
    other = CacheSpec((*SPEC.layers, *SPEC.layers), SPEC.context_window)

    async def keep(keeper: Ref[KeeperMessage]) -> None:
        await keeper.ask(Keep(((segment, payload),)))

    async def reopened(keeper: Ref[KeeperMessage]) -> None:
        assert (await fetch(keeper, (segment.id,))).bad == segment.id

    keeping(tmp_path, keep)
    keeping(tmp_path, reopened, other)
    assert Vault(tmp_path).path(segment.id).exists()


def test_whose_bytes_are_deleted_or_lost_is_told(tmp_path: Path) -> None:
    segment, payload = sample()
    told: list[tuple[str, ...]] = []

    async def scenario(keeper: Ref[KeeperMessage]) -> None:
        await keeper.ask(Keep(((segment, payload),)))
        await keeper.ask(Doom((segment.id,)))
        await keeper.ask(Drop((segment.id,)))
        assert told == [], "it has not been committed yet"
        keeper.tell(Settle((segment.id,)))
        await keeper.ask(Doom((segment.id,)))
        await keeper.ask(Drop((segment.id,)))
        assert told == [(segment.id,)]
        assert (await fetch(keeper, (segment.id,))).bad == segment.id
        assert told == [(segment.id,)] * 2

    keeping(tmp_path, scenario, gone=told.append)


class Counting(Vault):
    """Counts how often each segment is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def read(self, segment_id: str) -> tuple[Segment, Payload]:
        self.reads.append(segment_id)
        return super().read(segment_id)


def test_what_many_wait_for_is_read_once(tmp_path: Path) -> None:
    segment, payload = sample()
    vault = Counting(tmp_path)
    vault.write(segment, payload)

    async def scenario(keeper: Ref[KeeperMessage]) -> None:
        keeper.tell(Warm((segment.id, "ab" * 20)))
        both = await asyncio.gather(*(fetch(keeper, (segment.id,)) for _ in range(2)))
        assert [each.bad for each in both] == [None, None]
        assert (await fetch(keeper, (segment.id,))).bad is None, "it is hot now"
        assert (await keeper.ask(Weigh())).num_segments == 1
        assert vault.reads.count(segment.id) == 1

    keeping(tmp_path, scenario, vault=vault)
