"""What is said to the custodian, and what it answers."""

import msgspec

from greenroom.runtime.message import Message, Request


class Freed(msgspec.Struct, frozen=True):
    """What is gone from disk."""

    num_segments: int
    num_bytes: int


class Erase(Request[Freed], frozen=True):
    """Remove these segments now, rows and files, except what a head, a pin or a running turn
    needs. Afterwards no byte of them is in the store."""

    ids: tuple[str, ...]


class Wrote(Message, frozen=True):
    """The store has grown by so many bytes; None where the disk had no room for them."""

    num_bytes: int | None


class Cleared(msgspec.Struct, frozen=True):
    """What a round has found and done; ``num_bytes`` is what the store takes now."""

    num_bytes: int
    quota_bytes: int
    num_strays: int
    num_collected: int
    num_evicted: int
    freed_bytes: int
    num_superseded: int
    superseded_bytes: int


class Tidy(Request[Cleared], frozen=True):
    """Go through the whole store and clear what the quota and the time allow to go."""


class Rounds(Message, frozen=True):
    """It is time for a round, as the custodian tells itself."""


CustodianMessage = Erase | Wrote | Tidy | Rounds
