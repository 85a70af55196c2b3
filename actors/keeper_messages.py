"""What is said to the keeper, and what it answers."""

import msgspec

from greenroom.runtime.channel import Channel
from greenroom.runtime.codec import Payload
from greenroom.runtime.message import Message, Request
from greenroom.runtime.resume import Link
from greenroom.runtime.segments import Segment


class Fetched(msgspec.Struct, frozen=True):
    """The payloads of the chain's segments up to the first one that cannot be read (``bad``)."""

    payloads: tuple[Payload, ...]
    bad: str | None


class Fetch(Message, frozen=True):
    """The encoded bytes of these segments, from memory or from disk; see ``fetching.fetch``.

    Nobody else waits while they are read: not whoever keeps, and not whoever fetches what is hot.
    """

    ids: tuple[str, ...]
    reply: Channel[Fetched]


class Warm(Message, frozen=True):
    """Somebody is about to fetch these segments: begin to read what is not hot."""

    ids: tuple[str, ...]


class Keep(Request[bool], frozen=True):
    """Write these segments and remember their bytes; answered when they are durable.

    False when a segment had been written before, from another computation of the same tokens:
    then those bytes are the segment's, and not the ones given here.
    """

    segments: tuple[tuple[Segment, Payload], ...]


class Held(msgspec.Struct, frozen=True):
    """What is hot: encoded segments in memory, each held once however many agents share it."""

    num_segments: int
    num_bytes: int
    evicted: int


class Weigh(Request[Held], frozen=True):
    """How much is hot."""


class Outline(Request[tuple[Link | None, ...]], frozen=True):
    """What each of these segments holds, without its bytes; None for one that cannot be read."""

    ids: tuple[str, ...]


class Shed(Message, frozen=True):
    """The stage needs so many bytes of what is hot: let go of what was used longest ago."""

    num_bytes: int


class Settle(Message, frozen=True):
    """What was kept is committed, or never will be: its files may be deleted again."""

    ids: tuple[str, ...]


class Doom(Request[None], frozen=True):
    """These segments' files are about to go, unless a turn has kept them or is going to: said
    before it is looked up that nobody needs them."""

    ids: tuple[str, ...]


class DropStates(Request[int], frozen=True):
    """Delete the tails and states of these segments, hot ones too; the bytes freed on disk."""

    ids: tuple[str, ...]


class Drop(Request[int], frozen=True):
    """Delete files and hot bytes of those of these segments that are still doomed; bytes freed."""

    ids: tuple[str, ...]


KeeperMessage = Warm | Fetch | Keep | Weigh | Outline | Settle | Doom | Drop | DropStates | Shed
