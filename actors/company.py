"""Whom an agent works with."""

import msgspec

from greenroom.actors.messages import (
    CustodianMessage,
    GpuMessage,
    KeeperMessage,
    ModelFacts,
    StoreMessage,
)
from greenroom.actors.meter import Meter
from greenroom.runtime.ref import Ref
from greenroom.runtime.volatile import Volatile


class Company(msgspec.Struct, frozen=True):
    """Whom an agent works with, and what it knows of the model. ``codec`` as segments name it;
    ``volatile`` is what no prompt keeps."""

    gpu: Ref[GpuMessage]
    keeper: Ref[KeeperMessage]
    store: Ref[StoreMessage]
    custodian: Ref[CustodianMessage]
    facts: ModelFacts
    codec: str
    meter: Meter
    durable_turns: bool
    volatile: Volatile
