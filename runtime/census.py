"""Who needs what on disk, counted: index and files side by side, for the eviction policy."""

import os
import time
from collections.abc import Iterable

import msgspec

from greenroom.runtime.eviction import Census, Clearance, Kept, Stray, clear, quota_bytes
from greenroom.runtime.rows import Rows
from greenroom.runtime.vault import Found, Vault

INTERRUPTED_S = 3600.0
"""A temporary file of this age is no write that is still going on."""


class Count(msgspec.Struct, frozen=True):
    """The census, the segments that nothing reaches, and those whose file is not there.

    ``unowned`` are the files in a segment's place that no row says are stored, as paths and ids:
    only whoever keeps segments may remove these, since a turn may be about to commit them.
    ``states`` are the bytes of tails and states beside the segments that have any.
    """

    census: Census
    unreachable: tuple[str, ...]
    missing: tuple[str, ...]
    unowned: dict[str, str]
    states: dict[str, int]


def count(
    rows: Rows, files: Iterable[Found], held: frozenset[str], fixed_bytes: int, now: float
) -> Count:
    """Count what there is. ``files`` must have been looked up after ``rows``: a file comes before
    its row, so a row without a file has lost it."""
    segments: dict[str, int] = {}
    states: dict[str, int] = {}
    strays: list[Stray] = []
    stored = {each.id for each in rows.segments if each.stored}
    unowned: dict[str, str] = {}
    for file in files:
        if file.segment_id in stored:
            (states if file.state else segments)[file.segment_id] = file.num_bytes
            continue
        if file.path.startswith("tmp/") and now - file.modified < INTERRUPTED_S:
            fixed_bytes += file.num_bytes
            continue
        if file.segment_id is not None:
            unowned[file.path] = file.segment_id
        strays.append(Stray(file.path, file.num_bytes, file.modified))
    kept = tuple(
        Kept(
            each.id,
            each.parent,
            segments.get(each.id, 0) + states.get(each.id, 0),
            each.last_used,
        )
        for each in rows.segments
    )
    census = Census(kept, strays, rows.heads, held | rows.pins, fixed_bytes)
    alive = census.reached(census.heads.keys() | census.held)
    lost = tuple(each.id for each in kept if each.id not in alive)
    return Count(census, lost, tuple(stored - segments.keys()), unowned, states)


class Plan(msgspec.Struct, frozen=True):
    """What was counted, how much there may be, and what is to go."""

    count: Count
    quota: int
    clearance: Clearance


def plan(
    rows: Rows, held: frozenset[str], vault: Vault, disk_bytes: int, keep_branches_s: float
) -> Plan:
    """Look at every file and decide what goes. Blocking; ``disk_bytes`` 0 is a share of the disk.

    ``rows`` must have been read before; see ``count``.
    """
    now = time.time()
    counted = count(rows, vault.survey(), held, vault.index_bytes(), now)
    used = counted.census.num_bytes
    quota = quota_bytes(disk_bytes, used, free_bytes(vault.root))
    return Plan(counted, quota, clear(counted.census, now, quota, keep_branches_s))


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """What the disk below a folder has left for this user."""
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize
