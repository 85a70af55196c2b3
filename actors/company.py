"""Whom an agent works with."""

import msgspec

from greenroom.actors.custodian_messages import CustodianMessage
from greenroom.actors.gpu_messages import GpuMessage, ModelFacts
from greenroom.actors.keeper_messages import KeeperMessage
from greenroom.actors.meter import Meter
from greenroom.actors.store_messages import StoreMessage
from greenroom.runtime.agent_records import Overflow
from greenroom.runtime.ref import Ref
from greenroom.runtime.volatile import Volatile


class Company(msgspec.Struct, frozen=True):
    """Whom an agent works with, and what it knows of the model. ``codec`` as segments name it;
    ``volatile`` is what no prompt keeps; ``overflow`` what becomes of a history that outgrows the
    context window, unless its agent has a policy of its own, and ``overflow_keep`` the share of the
    window that stays."""

    gpu: Ref[GpuMessage]
    keeper: Ref[KeeperMessage]
    store: Ref[StoreMessage]
    custodian: Ref[CustodianMessage]
    facts: ModelFacts
    codec: str
    meter: Meter
    durable_turns: bool
    volatile: Volatile
    overflow: Overflow
    overflow_keep: float
