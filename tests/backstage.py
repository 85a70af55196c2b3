"""Store, keeper and custodian behind a house of which nothing else is there, and small segments."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.custodian import Custodian, Quota
from greenroom.actors.custodian_messages import CustodianMessage, Wrote
from greenroom.actors.keeper import Keeper
from greenroom.actors.keeper_messages import Keep, KeeperMessage, Settle
from greenroom.actors.store import Store
from greenroom.actors.store_messages import Commit, StoreMessage
from greenroom.actors.vital import PATIENT
from greenroom.runtime.codec import Payload
from greenroom.runtime.index import Index
from greenroom.runtime.medium import Medium
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
    system: System
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
    medium: Medium | None = None,
) -> None:
    """Run a scenario behind an open store."""
    index = Index(root, medium)
    vault = Vault(root, medium=medium)
    vault.clear_temporary()

    async def main(pool: ThreadPoolExecutor, thread: ThreadPoolExecutor) -> None:
        async with System() as system:
            store = system.spawn("store", partial(Store, index, thread, "f"), mailbox=PATIENT)

            def wrote(num_bytes: int | None) -> None:
                custodian.tell(Wrote(num_bytes))

            keeper = system.spawn(
                "keeper", partial(Keeper, vault, SPEC, 1 << 20, pool, wrote=wrote)
            )
            custodian: Ref[CustodianMessage] = system.spawn(
                "custodian", partial(Custodian, store, keeper, vault, pool, quota)
            )
            await scenario(Backstage(root, system, store, keeper, custodian))

    try:
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as thread:
            uvloop.run(main(pool, thread))
    finally:
        index.close()
