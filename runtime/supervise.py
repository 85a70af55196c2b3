"""Supervision: what becomes of an actor that failed. Pure: no loop, no clock, only values.

Children of one parent that were spawned with the same ``Supervision`` object form a group; under
``all`` the group restarts or stops together.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from greenroom.runtime.errors import InvalidRequest, Unavailable


class Decision(enum.Enum):
    """What to do with a failed actor."""

    RESUME = "resume"
    RESTART = "restart"
    STOP = "stop"
    ESCALATE = "escalate"


def default_decider(error: BaseException) -> Decision:
    """Typed refusals (the caller's fault, or try again) leave the actor as it is; else restart."""
    if isinstance(error, (InvalidRequest, Unavailable)):
        return Decision.RESUME
    return Decision.RESTART


class Backoff(Struct, frozen=True):
    """Seconds before a restart: ``initial_s * factor**n``, at most ``max_s``, spread by ``jitter``
    (a share of it, either way); ``n`` is back at 0 after ``reset_after_s`` without a failure."""

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.2
    reset_after_s: float = 60.0

    def delay(self, attempt: int, spread: float) -> float:
        """Seconds before restart number ``attempt`` (from 0); ``spread`` is random in [0, 1)."""
        # The exponent is bounded because 2.0**1100 overflows; the cap is reached long before.
        base = min(self.max_s, self.initial_s * self.factor ** min(attempt, 64))
        return base * (1.0 + self.jitter * (2.0 * spread - 1.0))


class Supervision(Struct, frozen=True, eq=False):
    """How an actor is supervised.

    More than ``max_restarts`` within ``window_s`` seconds: ``exhausted`` decides instead
    (``STOP`` or ``ESCALATE``).
    """

    scope: Literal["one", "all"] = "one"
    decider: Callable[[BaseException], Decision] = default_decider
    max_restarts: int = 5
    window_s: float = 60.0
    backoff: Backoff = Backoff()
    exhausted: Decision = Decision.STOP

    def decide(self, error: BaseException) -> Decision:
        """The decider's word; a decider that fails itself escalates."""
        try:
            return self.decider(error)
        except Exception:
            return Decision.ESCALATE


class RestartLog:
    """The restarts of one actor, for the window and the backoff."""

    __slots__ = ("_attempt", "_times", "count")

    def __init__(self) -> None:
        self.count = 0
        self._attempt = 0
        self._times: list[float] = []

    def next_delay(self, policy: Supervision, now: float, spread: float) -> float | None:
        """Record a restart at ``now``: seconds to wait before it, or None when there were too many.

        ``now`` in seconds, never decreasing; ``spread`` random in [0, 1).
        """
        if self._times and now - self._times[-1] >= policy.backoff.reset_after_s:
            self._attempt = 0
        recent = [time for time in self._times if now - time < policy.window_s]
        if len(recent) >= policy.max_restarts:
            return None
        self._times = [*recent, now]
        self.count += 1
        delay = policy.backoff.delay(self._attempt, spread)
        self._attempt += 1
        return delay
