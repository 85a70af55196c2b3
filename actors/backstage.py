"""Backstage: the actors that look after memories, whatever is on stage."""

from contextlib import suppress
from functools import partial
from typing import NamedTuple

from greenroom.actors.custodian import Custodian, quota_of
from greenroom.actors.custodian_messages import CustodianMessage, Wrote
from greenroom.actors.gpu_messages import Back, Discard, GpuMessage, ModelFacts
from greenroom.actors.ground import Ground
from greenroom.actors.keeper import Keeper
from greenroom.actors.keeper_messages import KeeperMessage
from greenroom.actors.store import Store
from greenroom.actors.store_messages import StoreMessage
from greenroom.actors.vital import PATIENT, vital
from greenroom.runtime.admission import Backing
from greenroom.runtime.audit import recall
from greenroom.runtime.errors import ActorStopped, MailboxFull
from greenroom.runtime.hot import room_for_copies
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import MemorySettings
from greenroom.runtime.system import System


class Backstage(NamedTuple):
    """The index behind one actor, the bytes behind another, and who clears up after both."""

    store: Ref[StoreMessage]
    keeper: Ref[KeeperMessage]
    custodian: Ref[CustodianMessage]


def backstage(
    system: System,
    memory: MemorySettings,
    ground: Ground,
    facts: ModelFacts,
    gpu: Ref[GpuMessage],
) -> Backstage:
    """Spawn them, in the order in which they need each other."""
    budget_bytes = memory.cache_budget_mb << 20

    def back(hot: int, pending: int) -> None:
        # Full or restarting: the next turn tells it again.
        with suppress(MailboxFull, ActorStopped):
            gpu.tell(Back(Backing(room_for_copies(budget_bytes, hot), hot, pending)))

    def grown(num_bytes: int | None) -> None:
        with suppress(MailboxFull, ActorStopped):  # the next round counts anew
            custodian.tell(Wrote(num_bytes))

    owed: set[str] = set()

    def gone(ids: tuple[str, ...]) -> None:
        owed.update(ids)
        with suppress(MailboxFull, ActorStopped):  # then the next time
            gpu.tell(Discard(tuple(owed)))
            owed.clear()

    vault, threads = ground.vault, ground.threads
    store: Ref[StoreMessage] = system.spawn(
        "store",
        partial(Store, ground.index, threads.commit, facts.fingerprint, partial(recall, vault)),
        supervision=vital(),
        mailbox=PATIENT,
    )
    keeper: Ref[KeeperMessage] = system.spawn(
        "keeper",
        partial(
            Keeper,
            vault,
            facts.spec,
            budget_bytes,
            threads.write,
            threads.read,
            back,
            grown,
            gone,
        ),
        supervision=vital(),
    )
    window = max(facts.spec.windows, default=0)
    custodian: Ref[CustodianMessage] = system.spawn(
        "custodian",
        partial(Custodian, store, keeper, vault, threads.read, quota_of(memory), window),
        supervision=vital(),
    )
    return Backstage(store, keeper, custodian)
