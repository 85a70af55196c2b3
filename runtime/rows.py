"""What the tables of the index hold, row by row."""

from collections.abc import Mapping
from typing import Any

import msgspec

from greenroom.runtime.segments import Segment


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as the index knows it. Times are in seconds since the epoch."""

    namespace: str
    name: str
    head: str | None
    system: str | None
    fingerprint: str
    created: float
    last_used: float
    extras: Mapping[str, Any] = {}


class PinRow(msgspec.Struct, frozen=True):
    """An agent keeps a segment, and what its chain needs, from eviction and collection.

    Several agents may pin one segment. ``created`` is in seconds since the epoch.
    """

    namespace: str
    agent: str
    segment: str
    created: float


class Contents(msgspec.Struct, frozen=True):
    """All that the index holds: agents, segments with parents before children, the ids of the
    segments that are damaged or lost their chain, which nothing can use any more, pins, and the ids
    of the segments whose bytes were evicted."""

    agents: tuple[AgentRow, ...]
    segments: tuple[Segment, ...]
    broken: tuple[str, ...]
    pins: tuple[PinRow, ...] = ()
    evicted: frozenset[str] = frozenset()


class SegmentRow(msgspec.Struct, frozen=True):
    """A segment without its contents; ``stored`` is whether it has bytes."""

    id: str
    parent: str | None
    last_used: float
    stored: bool


class Rows(msgspec.Struct, frozen=True):
    """All segments, when agents last used those on which they stand, and what is pinned."""

    segments: tuple[SegmentRow, ...]
    heads: Mapping[str, float]
    pins: frozenset[str]
