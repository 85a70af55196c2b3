"""The mailbox: bounded, first in first out, with a lane for supervision that overtakes.

It is a passive structure: it holds envelopes and counts, and never runs anything.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from greenroom.runtime.envelope import Envelope


class MailboxSpec(Struct, frozen=True):
    """``capacity`` in messages; what happens to one more: ``reject`` raises MailboxFull in the
    sender, ``wait`` lets ``ask`` and ``send`` wait their turn (``tell`` cannot wait)."""

    capacity: int = 256
    when_full: Literal["reject", "wait"] = "reject"


class MailboxStats(Struct, frozen=True):
    """``oldest_age_s`` is how long the message at the front has been waiting."""

    depth: int
    capacity: int
    waiting: int
    high_water: int
    taken: int
    rejected: int
    oldest_age_s: float


class Mailbox:
    """Envelopes in order. ``closed`` is for the owner to look at before it offers."""

    __slots__ = (
        "_queue",
        "_signals",
        "_waiting",
        "capacity",
        "closed",
        "high_water",
        "rejected",
        "taken",
        "when_full",
    )

    def __init__(self, spec: MailboxSpec) -> None:
        self.capacity = spec.capacity
        self.when_full = spec.when_full
        self.closed = False
        self.high_water = 0
        self.rejected = 0
        self.taken = 0
        self._queue: deque[Envelope] = deque()
        # Rarely used, so made when first needed: an idle actor should stay small.
        self._signals: deque[Envelope] | None = None
        self._waiting: deque[Envelope] | None = None

    def __len__(self) -> int:
        return len(self._queue) + (len(self._signals) if self._signals else 0)

    def offer(self, envelope: Envelope) -> bool:
        """Queue it if there is room; False (and counted) otherwise.

        Room goes to those who wait as soon as there is some, so nobody is overtaken here.
        """
        depth = len(self._queue)
        if depth >= self.capacity:
            self.rejected += 1
            return False
        self._queue.append(envelope)
        if depth >= self.high_water:
            self.high_water = depth + 1
        return True

    def offer_or_wait(self, envelope: Envelope) -> bool:
        """Queue it, or put it in the line of those who wait for room (False)."""
        if len(self._queue) < self.capacity:
            return self.offer(envelope)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(envelope)
        return False

    def force(self, envelope: Envelope) -> None:
        """Queue it beyond the capacity: for what an actor has arranged for itself."""
        self._queue.append(envelope)
        self.high_water = max(self.high_water, len(self._queue))

    def signal(self, envelope: Envelope) -> None:
        """Put it on the supervision lane, before every ordinary message, beyond the capacity."""
        if self._signals is None:
            self._signals = deque()
        self._signals.append(envelope)

    def take(self) -> Envelope | None:
        """The next envelope: supervision first, then the oldest message."""
        if self._signals:
            return self._signals.popleft()
        if not self._queue:
            return None
        envelope = self._queue.popleft()
        self.taken += 1
        if self._waiting:
            self._admit()
        return envelope

    def remove(self, envelope: Envelope) -> bool:
        """Take back an envelope that is queued or waits for room; False if it is neither."""
        for line in (self._queue, self._waiting):
            if not line:
                continue
            try:
                line.remove(envelope)
            except ValueError:
                continue
            self._admit()
            return True
        return False

    def clear(self) -> list[Envelope]:
        """Empty it; what was in it, in order, those that waited for room last."""
        lines = (self._signals, self._queue, self._waiting)
        left = [envelope for line in lines if line for envelope in line]
        for line in lines:
            if line:
                line.clear()
        return left

    def stats(self, now: float) -> MailboxStats:
        """A snapshot; ``now`` on the clock that stamped the envelopes."""
        return MailboxStats(
            depth=len(self),
            capacity=self.capacity,
            waiting=len(self._waiting) if self._waiting else 0,
            high_water=self.high_water,
            taken=self.taken,
            rejected=self.rejected,
            oldest_age_s=now - self._queue[0].at if self._queue else 0.0,
        )

    def _admit(self) -> None:
        while self._waiting and len(self._queue) < self.capacity:
            envelope = self._waiting.popleft()
            self.force(envelope)
            if envelope.admitted is not None and not envelope.admitted.done():
                envelope.admitted.set_result(None)
