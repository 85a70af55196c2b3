"""Dead letters: messages that had no effect, or whose handling failed."""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import Literal

from msgspec import Struct

LOGGER = logging.getLogger("greenroom.deadletters")

# stopped: the receiver was gone or going; full: nobody could be told; failed: its handler crashed;
# killed: its handler was killed; stale: meant for an earlier generation.
Why = Literal["stopped", "full", "failed", "killed", "stale"]


class DeadLetter(Struct, frozen=True):
    """``to`` is the receiver's path."""

    to: str
    message: object
    why: Why


class DeadLetters:
    """Counts all of them and keeps the latest ``capacity``."""

    def __init__(self, capacity: int = 256) -> None:
        self.counts: Counter[Why] = Counter()
        self._latest: deque[DeadLetter] = deque(maxlen=capacity)

    @property
    def total(self) -> int:
        """How many there have been."""
        return self.counts.total()

    @property
    def latest(self) -> list[DeadLetter]:
        """The latest, oldest first."""
        return list(self._latest)

    def add(self, to: str, message: object, why: Why) -> None:
        """Record one. The log names the message's type, never its content."""
        self.counts[why] += 1
        self._latest.append(DeadLetter(to, message, why))
        LOGGER.debug("%s for %s: %s", type(message).__name__, to, why, extra={"actor": to})

    def take(self) -> list[DeadLetter]:
        """The latest, which are then forgotten (the counts are not)."""
        latest = list(self._latest)
        self._latest.clear()
        return latest
