"""The custodian: what nothing needs leaves index and disk, and nothing else does."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from greenroom.actors.custodian import Custodian
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
        await self.keeper.ask(Fetch(()))
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


def backstage(root: Path, scenario: Callable[[Backstage], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario behind an open store."""
    index = Index(root)
    vault = Vault(root)

    async def main(pool: ThreadPoolExecutor) -> None:
        async with System() as system:
            store = system.spawn("store", partial(Store, index, "f"))
            keeper = system.spawn("keeper", partial(Keeper, vault, SPEC, 1 << 20, pool))
            custodian = system.spawn("custodian", partial(Custodian, store, keeper))
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
