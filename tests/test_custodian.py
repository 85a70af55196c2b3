"""The custodian: what nothing needs leaves index and disk, and nothing else does."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from greenroom.actors.custodian import Custodian, Quota
from greenroom.actors.keeper import Keeper
from greenroom.actors.messages import (
    AgentKey,
    Commit,
    CustodianMessage,
    Erase,
    Fetch,
    Keep,
    KeeperMessage,
    LetGo,
    Match,
    Recall,
    Settle,
    StoreMessage,
    Tidy,
    Wrote,
)
from greenroom.actors.store import Store
from greenroom.runtime.codec import Payload
from greenroom.runtime.index import Index, PinRow
from greenroom.runtime.ref import Ref
from greenroom.runtime.segments import Segment, make_segment
from greenroom.runtime.spec import CacheSpec, LayerSpec
from greenroom.runtime.system import System
from greenroom.runtime.vault import Vault

SPEC = CacheSpec((LayerSpec("full", 1, 8, 8, "float32"),), 64)
ALICE, BOB = AgentKey("n", "alice"), AgentKey("n", "bob")
ROOMY = Quota(1 << 30, 1e9)
SECRET = "the word is xylophone"


class Backstage(NamedTuple):
    """The three actors that look after the store, and the store."""

    root: Path
    store: Ref[StoreMessage]
    keeper: Ref[KeeperMessage]
    custodian: Ref[CustodianMessage]

    async def turn(self, key: AgentKey, *segments: Segment) -> None:
        """An agent's memory grows by segments, as at the end of a turn."""
        await self.keeper.ask(Keep(tuple((s, payload_of(s)) for s in segments)))
        await self.store.ask(Commit(key, segments, segments[-1].id))
        self.keeper.tell(Settle(tuple(s.id for s in segments)))

    async def files(self) -> set[str]:
        return await asyncio.to_thread(lambda: set(Vault(self.root).ids()))

    async def content(self) -> bytes:
        """All that is in any file of the store."""

        def read() -> bytes:
            return b"".join(p.read_bytes() for p in self.root.rglob("*") if p.is_file())

        return await asyncio.to_thread(read)


def payload_of(segment: Segment) -> Payload:
    """Some keys and values."""
    shape = (1, 1, segment.num_tokens, 8)
    rows = np.full(shape, segment.tokens[0], np.float32)
    return Payload(segment.codec, segment.num_tokens, {"0.k.raw": rows, "0.v.raw": rows})


def segment(parent: Segment | None, tokens: Sequence[int], **over: Any) -> Segment:
    fields: dict[str, Any] = {
        "parent": parent.id if parent else None,
        "start": parent.end if parent else 0,
        "tokens": tokens,
        "kind": "prompt",
        "namespace": "n",
        "fingerprint": "f",
        "codec": "float/1",
        "messages": ({"role": "user", "content": SECRET},),
    }
    return make_segment(**{**fields, **over})


def backstage(
    root: Path,
    scenario: Callable[[Backstage], Coroutine[Any, Any, None]],
    quota: Quota = ROOMY,
) -> None:
    """Run a scenario behind an open store."""
    index = Index(root)
    vault = Vault(root)

    async def main(pool: ThreadPoolExecutor) -> None:
        async with System() as system:
            store = system.spawn("store", partial(Store, index, "f"))
            keeper = system.spawn("keeper", partial(Keeper, vault, SPEC, 1 << 20, pool))
            custodian = system.spawn(
                "custodian", partial(Custodian, store, keeper, vault, pool, quota)
            )
            await scenario(Backstage(root, store, keeper, custodian))

    try:
        with ThreadPoolExecutor(2) as pool:
            uvloop.run(main(pool))
    finally:
        index.close()


def test_what_is_erased_is_in_no_file(tmp_path: Path) -> None:
    root = segment(None, range(40), messages=())
    secret = segment(root, range(100, 140))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, root, secret)
        await house.turn(ALICE, root)  # back to before it was said
        freed = await house.custodian.ask(Erase((root.id, secret.id)))
        assert freed.num_segments == 1
        assert await house.files() == {root.id}
        assert freed.num_bytes > payload_of(secret).num_bytes
        tokens = (*root.tokens.tolist(), *secret.tokens.tolist())
        (piece,) = await house.store.ask(Match("n", tokens))
        assert piece.segment == root
        assert await house.store.ask(Recall(secret.id)) == ()
        content = await house.content()
        assert SECRET.encode() not in content
        assert secret.token_bytes not in content
        assert root.token_bytes in content

    backstage(tmp_path, scenario)


def test_what_heads_pins_and_running_turns_need_stays(tmp_path: Path) -> None:
    root = segment(None, range(40))
    shared, pinned, free = (segment(root, range(n, n + 40)) for n in (100, 200, 300))
    below = segment(free, range(400, 440))
    everything = (root, shared, pinned, free, below)
    ids = tuple(s.id for s in everything)

    async def grow(house: Backstage) -> None:
        await house.turn(ALICE, *everything)
        await house.turn(ALICE, shared)

    async def erase(house: Backstage) -> None:
        tokens = tuple(t for s in (root, free, below) for t in s.tokens.tolist())
        await house.store.ask(Match("n", tokens, BOB))
        assert (await house.custodian.ask(Erase(ids))).num_segments == 0
        house.store.tell(LetGo(BOB))
        assert (await house.custodian.ask(Erase(ids))).num_segments == 2
        assert await house.files() == {root.id, shared.id, pinned.id}

    backstage(tmp_path, grow)
    index = Index(tmp_path)
    index.pin(PinRow("n", "bob", pinned.id, 1.0))
    index.close()
    backstage(tmp_path, erase)


def test_what_a_turn_has_kept_and_not_committed_keeps_its_file(tmp_path: Path) -> None:
    """Another turn had made the same segment, and nobody needed it any more."""
    root, again = segment(None, range(40)), segment(None, range(50, 90))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, again)
        await house.turn(ALICE, root)
        assert not await house.keeper.ask(Keep(((again, payload_of(again)),)))
        assert (await house.custodian.ask(Erase((again.id,)))).num_segments == 1
        await house.store.ask(Commit(BOB, (again,), again.id))
        house.keeper.tell(Settle((again.id,)))
        assert (await house.keeper.ask(Fetch((again.id,)))).bad is None
        assert await house.store.ask(Recall(again.id))

    backstage(tmp_path, scenario)


def test_a_store_that_outgrows_its_quota_lets_go_of_the_oldest_bytes(tmp_path: Path) -> None:
    trunk = segment(None, range(40))
    tips = [segment(trunk, range(n, n + 3000)) for n in range(100, 1100, 100)]  # 190 KB each
    keys = [AgentKey("n", f"agent-{n}") for n in range(len(tips))]

    async def scenario(house: Backstage) -> None:
        for key, tip in zip(keys, tips, strict=True):
            await house.turn(key, *([trunk, tip] if tip is tips[0] else [tip]))
        cleared = await house.custodian.ask(Tidy())
        assert cleared.num_evicted > 0
        assert cleared.num_collected == 0
        assert cleared.num_bytes <= cleared.quota_bytes
        kept = await house.files()
        assert trunk.id in kept
        assert len(kept) == 1 + len(tips) - cleared.num_evicted
        left = [tip.id in kept for tip in tips]
        assert left == sorted(left), "the longest unused went"
        for tip in tips:
            assert len(await house.store.ask(Recall(tip.id))) == 2, "its words are known"
            tokens = (*trunk.tokens.tolist(), *tip.tokens.tolist())
            matched = await house.store.ask(Match("n", tokens))
            assert len(matched) == (2 if tip.id in kept else 1)
            fetched = await house.keeper.ask(Fetch(tuple(p.segment.id for p in matched)))
            assert fetched.bad is None
        again = tips[0]
        await house.turn(keys[0], again)
        assert again.id in await house.files()

    async def restarted(house: Backstage) -> None:
        kept = await house.files()
        matched = [
            len(await house.store.ask(Match("n", (*range(40), *tip.tokens.tolist()))))
            for tip in tips
        ]
        assert matched == [2 if tip.id in kept else 1 for tip in tips]

    backstage(tmp_path, scenario, Quota(1_200_000, 1e9))
    backstage(tmp_path, restarted)


def test_what_turns_write_makes_a_round_begin(tmp_path: Path) -> None:
    async def scenario(house: Backstage) -> None:
        await house.custodian.ask(Tidy())
        for number in range(6):
            grown = segment(None, range(number, number + 3000))
            await house.turn(AgentKey("n", str(number)), grown)
            house.custodian.tell(Wrote(payload_of(grown).num_bytes))
        await house.custodian.ask(Erase(()))  # comes after what was told
        assert 3 <= len(await house.files()) < 6

    backstage(tmp_path, scenario, Quota(1_000_000, 1e9))


def test_files_that_nobody_owns_count_and_go(tmp_path: Path) -> None:
    kept, broken = segment(None, range(40)), segment(None, range(50, 90))
    vault = Vault(tmp_path)
    unowned = segment(None, range(70))
    vault.write(unowned, payload_of(unowned))
    strange = [tmp_path / "segments" / "notes.txt", tmp_path / "segments" / "ab" / "deep" / "er"]
    old = [*strange, vault.path(unowned.id), tmp_path / "tmp" / "half", tmp_path / "quarantine/q"]
    young = tmp_path / "tmp" / "being-written"
    for path in (*old, young):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    for path in old:
        os.utime(path, (1e9, 1e9))

    async def scenario(house: Backstage) -> None:
        await house.turn(ALICE, kept)
        await house.turn(BOB, broken)
        vault.path(broken.id).unlink()
        await house.custodian.ask(Tidy())
        left = await asyncio.to_thread(lambda: [p.exists() for p in (*old, young)])
        if quota is ROOMY:
            assert left == [True] * 6
            return
        assert left == [False] * 5 + [True]
        assert await house.files() == {kept.id}
        assert len(await house.store.ask(Recall(broken.id))) == 1
        assert await house.store.ask(Match("n", tuple(range(50, 90)))) == ()

    for quota in (ROOMY, Quota(1 << 30, 0.0)):
        backstage(tmp_path, scenario, quota)
