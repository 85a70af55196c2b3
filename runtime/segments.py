"""Segments: the immutable, content-addressed links of which an agent's memory is a chain.

A segment holds tokens, never arrays: its encoded attention state lives in a payload beside it, so
that chains, transcripts and prefixes are plain data. A child may start inside its parent, which
then contributes only its tokens before that start: an edited history is a branch, not a rewrite.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from greenroom.runtime.errors import GreenroomError

Kind = Literal["system", "prompt", "generation", "heard"]
Message = dict[str, Any]
Tokens = npt.NDArray[np.uint32]

_TOKEN = np.dtype("<u4")
TOKEN_BYTES = _TOKEN.itemsize
"""Of one packed token."""
_ADDRESS_VERSION = b"greenroom segment 1"


class BrokenChain(GreenroomError):
    """A chain names a segment that is gone, or a child starts outside its parent.

    ``segment_id`` is the link that cannot be resolved. Nobody's request is at fault: the store lost
    something, and the caller goes on from the deepest good ancestor.
    """

    def __init__(self, message: str, *, segment_id: str) -> None:
        super().__init__(message)
        self.segment_id = segment_id


class Segment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One run of tokens whose state was computed with its parent's chain before it.

    ``start`` is the absolute position of the first token; ``start`` below the parent's end means
    that the child continues from a cut of the parent. ``transcript_base`` is how many messages of
    the parent's transcript still hold, ``messages`` what this segment adds. ``fingerprint`` names
    the model, ``codec`` the name and version of the payload's codec, ``text`` the exact text that
    the tokens stand for in a rendered prompt, ``num_bytes`` the size of the
    payload, ``created`` is in seconds since the epoch.
    """

    id: str
    parent: str | None
    start: int
    token_bytes: bytes
    text: str
    kind: Kind
    transcript_base: int
    messages: tuple[Message, ...]
    namespace: str
    fingerprint: str
    codec: str
    num_bytes: int
    created: float

    @property
    def tokens(self) -> Tokens:
        """Token ids, shape (num_tokens,), a read-only view."""
        return np.frombuffer(self.token_bytes, _TOKEN)

    @property
    def num_tokens(self) -> int:
        return len(self.token_bytes) // _TOKEN.itemsize

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + self.num_tokens


class Piece(msgspec.Struct, frozen=True):
    """A segment's part in one chain: its first ``used`` tokens."""

    segment: Segment
    used: int


Lookup = Callable[[str], Segment | None]


def pack_tokens(tokens: Sequence[int] | Tokens) -> bytes:
    """Token ids as little-endian uint32, the form that is hashed, indexed and stored."""
    return np.asarray(tokens, dtype=_TOKEN).tobytes()


def make_segment(
    *,
    parent: str | None,
    start: int,
    tokens: Sequence[int] | Tokens,
    text: str = "",
    kind: Kind,
    namespace: str,
    fingerprint: str,
    codec: str,
    transcript_base: int = 0,
    messages: Sequence[Message] = (),
    num_bytes: int = 0,
    created: float = 0.0,
) -> Segment:
    """Build a segment and address it by its content.

    Raises ValueError for an empty run, or a root that does not start at position 0.
    """
    token_bytes = pack_tokens(tokens)
    if not token_bytes:
        raise ValueError("a segment holds at least one token")
    if start < 0 or (parent is None) != (start == 0):
        raise ValueError(f"start {start} does not fit parent {parent!r}")
    unaddressed = Segment(
        id="",
        parent=parent,
        start=start,
        token_bytes=token_bytes,
        text=text,
        kind=kind,
        transcript_base=transcript_base,
        messages=tuple(messages),
        namespace=namespace,
        fingerprint=fingerprint,
        codec=codec,
        num_bytes=num_bytes,
        created=created,
    )
    return msgspec.structs.replace(unaddressed, id=digest(unaddressed))


def readdressed(segment: Segment, namespace: str, parent: str | None) -> Segment:
    """The same segment in another namespace, where its parent has another address."""
    moved = msgspec.structs.replace(segment, id="", namespace=namespace, parent=parent)
    return msgspec.structs.replace(moved, id=digest(moved))


def digest(segment: Segment) -> str:
    """The address of a segment: 40 hex digits over all that it means, not over when or how large.

    The namespace is the salt: equal text of two callers gives two addresses. Messages count too,
    since two transcripts may render to the same tokens.
    """
    hasher = hashlib.blake2b(_ADDRESS_VERSION, digest_size=20)
    meaning = (
        segment.namespace,
        segment.fingerprint,
        segment.codec,
        segment.parent,
        segment.start,
        segment.kind,
        segment.transcript_base,
        segment.messages,
    )
    encoded = msgspec.json.encode(meaning, order="sorted")
    hasher.update(len(encoded).to_bytes(8, "little"))
    hasher.update(encoded)
    hasher.update(segment.token_bytes)
    return hasher.hexdigest()


def chain(head: str | None, lookup: Lookup | Mapping[str, Segment]) -> tuple[Piece, ...]:
    """The pieces from the root to ``head``, each cut to what the chain uses of it.

    Raises BrokenChain when a link is missing or a child starts outside its parent.
    """
    find = lookup.get if isinstance(lookup, Mapping) else lookup
    pieces: list[Piece] = []
    wanted, stop = head, None
    while wanted is not None:
        segment = find(wanted)
        if segment is None:
            raise BrokenChain(f"segment {wanted} is missing", segment_id=wanted)
        used = segment.num_tokens if stop is None else stop - segment.start
        if not 0 < used <= segment.num_tokens:
            raise BrokenChain(f"position {stop} is outside segment {wanted}", segment_id=wanted)
        pieces.append(Piece(segment, used))
        wanted, stop = segment.parent, segment.start
    if stop:
        raise BrokenChain(f"the chain of {head} starts at {stop}", segment_id=str(head))
    pieces.reverse()
    return tuple(pieces)


def cut(pieces: Sequence[Piece], length: int) -> tuple[Piece, ...]:
    """The chain's first ``length`` tokens; all of it when it is shorter.

    The last piece is the parent of a segment that starts at ``length``.
    """
    kept: list[Piece] = []
    for piece in pieces:
        left = length - piece.segment.start
        if left <= 0:
            break
        kept.append(Piece(piece.segment, min(piece.used, left)))
    return tuple(kept)


def chain_length(pieces: Sequence[Piece]) -> int:
    """Tokens in the chain."""
    return pieces[-1].segment.start + pieces[-1].used if pieces else 0


def chain_tokens(pieces: Sequence[Piece]) -> Tokens:
    """Token ids of the whole chain, shape (chain_length,)."""
    if not pieces:
        return np.empty(0, _TOKEN)
    return np.concatenate([piece.segment.tokens[: piece.used] for piece in pieces])


def transcript(pieces: Sequence[Piece]) -> list[Message]:
    """The chat messages that the chain stands for, oldest first."""
    messages: list[Message] = []
    for piece in pieces:
        del messages[piece.segment.transcript_base :]
        messages.extend(piece.segment.messages)
    return messages
