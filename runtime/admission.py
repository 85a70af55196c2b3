"""Who may come on stage, as far as memory is concerned: a pure policy, and the sums it needs.

Before a prompt is computed its floats are set against one limit, together with those that are on
stage already, with decoded copies that are kept, with encoded segments in memory and with those
on their way to disk. What can be had again goes before anybody waits.
"""

from enum import Enum

import msgspec

BLOCK = 256
"""Tokens: the steps in which caches grow (mlx-lm's ``KVCache.step``), and claims with them."""


class Holdings(msgspec.Struct, frozen=True):
    """Bytes by what they are for, and the ``limit`` for all of them.

    ``stage``: floats of sequences; ``resident``: decoded copies; ``hot``: encoded segments that
    are on disk, too; ``pending``: encoded segments that are not on disk yet.
    """

    limit: int
    stage: int = 0
    resident: int = 0
    hot: int = 0
    pending: int = 0

    @property
    def free(self) -> int:
        """What is left; negative when more is held than the limit allows."""
        return self.limit - self.stage - self.resident - self.hot - self.pending


class Backing(msgspec.Struct, frozen=True):
    """Bytes of memories beside the stage: ``hot`` ones, ones that are ``pending`` a write.

    ``copies`` is what decoded copies may take: what the others leave of their common budget.
    """

    copies: int
    hot: int = 0
    pending: int = 0


class Verdict(Enum):
    """Now; when something else has ended or is on disk; or not even on an empty stage."""

    NOW = "now"
    LATER = "later"
    NEVER = "never"


class Decision(msgspec.Struct, frozen=True):
    """The verdict, and what has to go first: bytes of decoded copies and of hot segments.

    With ``LATER`` they are what is worth giving up already.
    """

    verdict: Verdict
    drop_resident: int = 0
    drop_hot: int = 0


def admit(needed: int, alone: int, held: Holdings) -> Decision:
    """Whether ``needed`` more bytes may be taken, by a sequence that takes ``alone`` by itself.

    Decoded copies go first, at once. Hot segments are somebody else's to drop, which takes a
    moment: then it is ``LATER``, as it is when only an end of others can help.
    """
    if alone > held.limit:
        return Decision(Verdict.NEVER)
    short = max(0, needed - held.free)
    drop_resident = min(short, held.resident)
    still = short - drop_resident
    if not still:
        return Decision(Verdict.NOW, drop_resident)
    return Decision(Verdict.LATER, drop_resident, min(still, held.hot))


class Ledger:
    """What the sequences on stage have claimed, in tokens, and what that amounts to in bytes.

    Rows that decode together are padded to the longest of them (mlx-lm's batch caches), so each
    is counted at the longest one's length.
    """

    def __init__(self, bytes_per_token: int, bytes_fixed: int, limit: int) -> None:
        """``bytes_fixed`` is what a sequence takes however short it is."""
        self._bytes_per_token = bytes_per_token
        self._bytes_fixed = bytes_fixed
        self._claims: dict[int, int] = {}
        self.limit = limit
        self.hot = 0
        self.pending = 0

    def holdings(self, resident: int) -> Holdings:
        """All that is held, with so many bytes of decoded copies."""
        return Holdings(self.limit, self._bytes({}), resident, self.hot, self.pending)

    def claimed(self, uid: int) -> int:
        """The tokens that a sequence has room for; 0 for one that has claimed nothing."""
        return self._claims.get(uid, 0)

    def needed(self, uid: int, num_tokens: int) -> int:
        """Bytes that it takes to give a sequence room for ``num_tokens``, beyond what it has."""
        return self._bytes({uid: _blocks(num_tokens)}) - self._bytes({})

    def alone(self, num_tokens: int) -> int:
        """Bytes of a sequence of ``num_tokens`` that has the stage for itself."""
        return self._bytes_fixed + self._bytes_per_token * _blocks(num_tokens)

    def claim(self, uid: int, num_tokens: int) -> None:
        """Room for ``num_tokens`` is the sequence's from now on."""
        self._claims[uid] = _blocks(num_tokens)

    def release(self, uid: int) -> None:
        """The sequence is off the stage. Unknown ones are ignored."""
        self._claims.pop(uid, None)

    def _bytes(self, more: dict[int, int]) -> int:
        claims = (self._claims | more).values()
        rows = self._bytes_fixed + self._bytes_per_token * max(claims, default=0)
        return len(claims) * rows


def _blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK) * BLOCK
