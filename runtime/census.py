"""Who needs what on disk, counted: index and files side by side, for the eviction policy."""

import os
from collections.abc import Iterable

import msgspec

from greenroom.runtime.eviction import Census, Kept, Stray
from greenroom.runtime.reach import Rows
from greenroom.runtime.vault import Found

INTERRUPTED_S = 3600.0
"""A temporary file of this age is no write that is still going on."""


class Count(msgspec.Struct, frozen=True):
    """The census, the rows whose file is not there, and files in a segment's place without a row
    that says so: by id, since only whoever keeps segments may remove these."""

    census: Census
    missing: tuple[str, ...]
    unowned: dict[str, str]


def count(
    rows: Rows, files: Iterable[Found], held: frozenset[str], fixed_bytes: int, now: float
) -> Count:
    """Count what there is. ``files`` must have been looked up after ``rows``: a file comes before
    its row, so a row without a file has lost it."""
    segments: dict[str, Found] = {}
    strays: list[Stray] = []
    stored = {each.id for each in rows.segments if each.stored}
    unowned: dict[str, str] = {}
    for file in files:
        if file.segment_id in stored:
            segments[file.segment_id] = file
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
            segments[each.id].num_bytes if each.id in segments else 0,
            each.last_used,
        )
        for each in rows.segments
    )
    census = Census(kept, strays, rows.heads, held | rows.pins, fixed_bytes)
    return Count(census, tuple(stored - segments.keys()), unowned)


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """What the disk below a folder has left for this user."""
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize
