"""What leaves the disk: pure decisions about files that nothing needs and memory that is oldest.

An agent whose bytes are evicted loses no word: its token ids stay in the index, and its next turn
computes anew what is missing. So bytes are a cache, and the least recently used go first. What a
pin or a running turn reaches is never touched.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

LOW_WATER = 0.9
"""A full store is cleared to this share of its quota, so that it is not full again at once."""
RESERVE_BYTES = 64 << 20
"""Free space that is left to the disk whatever the quota says: a full disk refuses turns."""


class Kept(msgspec.Struct, frozen=True):
    """A segment that the index knows. ``num_bytes`` are those of its files, 0 when there are none;
    ``last_used`` is in seconds since the epoch."""

    id: str
    parent: str | None
    num_bytes: int
    last_used: float


class Stray(msgspec.Struct, frozen=True):
    """A file that the index does not know: damaged and set aside, foreign, or left by a write that
    was interrupted. ``modified`` is in seconds since the epoch."""

    path: str
    num_bytes: int
    modified: float


class Census(msgspec.Struct, frozen=True):
    """All that takes room, and what needs it.

    ``heads`` are the segments on which agents stand, with the time of the last use by any of them;
    ``held`` are those that pins and running turns stand on. ``fixed_bytes`` can never be freed.
    """

    segments: Sequence[Kept]
    strays: Sequence[Stray] = ()
    heads: Mapping[str, float] = {}
    held: frozenset[str] = frozenset()
    fixed_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of every file."""
        segments = sum(each.num_bytes for each in self.segments)
        return self.fixed_bytes + segments + sum(each.num_bytes for each in self.strays)

    def reached(self, ends: AbstractSet[str]) -> set[str]:
        """The segments on the way from the roots to ``ends``."""
        parents = {each.id: each.parent for each in self.segments}
        reached: set[str] = set()
        for end in ends:
            at: str | None = end
            while at in parents and at not in reached:
                reached.add(at)
                at = parents[at]
        return reached


class Clearance(msgspec.Struct, frozen=True):
    """What is to go, in this order: stray files by path, segments that nothing reaches (rows and
    files), and segments of which only the bytes go. Children come before their parents."""

    strays: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()
    evicted: tuple[str, ...] = ()


def quota_bytes(configured_bytes: int, used_bytes: int, free_bytes: int) -> int:
    """How much a store of ``used_bytes`` may take of a disk that has ``free_bytes`` left.

    ``configured_bytes`` 0 is half of what the store could have, so that the other half stays for
    everybody else, also when they take more later on.
    """
    reach = used_bytes + free_bytes
    wanted = configured_bytes or reach // 2
    return max(0, min(wanted, reach - RESERVE_BYTES))


def clear(census: Census, now: float, quota: int, keep_branches_s: float) -> Clearance:
    """Decide what goes.

    What nothing reaches goes ``keep_branches_s`` after its last use: an edited history may be
    returned to. When the store exceeds its quota, that goes at once, the oldest first, after the
    strays; then the bytes of agents, the longest unused first, until ``LOW_WATER`` of it is left.
    """
    used = _last_used(census)
    alive = census.reached(census.heads.keys() | census.held)
    locked = census.reached(census.held)
    excess = census.num_bytes - quota
    if excess > 0:
        excess = census.num_bytes - int(LOW_WATER * quota)

    strays: list[str] = []
    collected: list[str] = []
    evicted: list[str] = []
    for stray in sorted(census.strays, key=lambda each: (each.modified, each.path)):
        if excess > 0 or now - stray.modified > keep_branches_s:
            strays.append(stray.path)
            excess -= stray.num_bytes
    for segment in _oldest_first(census.segments, used):
        if segment.id not in alive and (excess > 0 or now - used[segment.id] > keep_branches_s):
            collected.append(segment.id)
            excess -= segment.num_bytes
    for segment in _oldest_first(census.segments, used):
        if excess <= 0:
            break
        if segment.id in alive and segment.id not in locked and segment.num_bytes:
            evicted.append(segment.id)
            excess -= segment.num_bytes
    return Clearance(tuple(strays), tuple(collected), tuple(evicted))


def _oldest_first(segments: Sequence[Kept], used: Mapping[str, float]) -> list[Kept]:
    """By last use; of equally old ones children before parents."""
    depth = {each.id: 0 for each in segments}
    for each in _parents_first(segments):
        depth[each.id] = depth.get(each.parent or "", -1) + 1
    return sorted(segments, key=lambda each: (used[each.id], -depth[each.id], each.id))


def _last_used(census: Census) -> dict[str, float]:
    """When each segment was used last: by itself, by an agent on it, or by what follows it."""
    used = {s.id: max(s.last_used, census.heads.get(s.id, 0.0)) for s in census.segments}
    for each in reversed(_parents_first(census.segments)):
        if each.parent in used:
            used[each.parent] = max(used[each.parent], used[each.id])
    return used


def _parents_first(segments: Sequence[Kept]) -> list[Kept]:
    """In an order in which every parent that is here comes before its children."""
    by_id = {each.id: each for each in segments}
    children: dict[str | None, list[Kept]] = {}
    for each in segments:
        children.setdefault(each.parent if each.parent in by_id else None, []).append(each)
    ordered = children.pop(None, [])
    for each in ordered:  # grows while it is walked
        ordered.extend(children.pop(each.id, ()))
    return ordered
