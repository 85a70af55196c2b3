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


class Company(msgspec.Struct, frozen=True):
    """Whom an agent works with, and what it knows of the model. ``codec`` as segments name it."""

    gpu: Ref[GpuMessage]
    keeper: Ref[KeeperMessage]
    store: Ref[StoreMessage]
    custodian: Ref[CustodianMessage]
    facts: ModelFacts
    codec: str
    meter: Meter
    durable_turns: bool
