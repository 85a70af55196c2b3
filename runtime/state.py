"""The states of an actor's life, and the verdicts that change them from outside."""

from __future__ import annotations

import enum
from typing import Literal

from msgspec import Struct


class State(enum.Enum):
    """Where an actor is in its life."""

    WAITING = "waiting"  # its predecessor of the same name has not finished stopping
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"  # crashed; a restart is due
    PASSIVATING = "passivating"
    PASSIVE = "passive"  # out of memory until the next message
    ENDING = "ending"  # done; its last children are going
    STOPPED = "stopped"


OVER = (State.ENDING, State.STOPPED)
Reason = Literal["stopped", "killed", "failed"]


class Verdict(Struct, eq=False):
    """What is to happen to an actor as soon as its code lets go; a kill outranks the others."""

    kind: Literal["fail", "restart", "stop", "kill"]
    error: BaseException | None = None
    delay_s: float = 0.0
