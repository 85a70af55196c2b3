"""Rows of the index that are damaged or have lost their parent.

They are taken from the segments' files where those are sound; where not, agents go back to the
deepest ancestor that is whole.
"""

from collections.abc import Callable

from greenroom.runtime.index import Index
from greenroom.runtime.rows import Contents
from greenroom.runtime.segments import Segment

Recover = Callable[[str], Segment | None]
"""What a segment's file says of it, None where it is not sound."""


def load(index: Index, recover: Recover) -> Contents:
    """Everything in the index, mended: nothing in it is broken."""
    contents = index.load_all()
    dangling = _dangling(contents)
    if not contents.broken and not dangling:
        return contents
    index.restore(_recovered(index, {*contents.broken, *dangling}, recover))
    contents = index.load_all()
    index.retreat({each.id for each in contents.segments})
    index.remove(contents.broken)
    return index.load_all()


def _dangling(contents: Contents) -> set[str]:
    """Heads that have no row."""
    known = {each.id for each in contents.segments}
    return {a.head for a in contents.agents if a.head is not None and a.head not in known}


def _recovered(index: Index, wanted: set[str], recover: Recover) -> list[Segment]:
    """What is wanted, and the parents that it lacks, as far as there are sound files."""
    rows = {each.id: each.parent for each in index.rows().segments}
    waiting = list(wanted)
    waiting += [parent for each in wanted if (parent := rows.get(each)) and parent not in rows]
    seen = set(waiting)
    found: list[Segment] = []
    for each in waiting:  # grows while it is walked
        segment = recover(each)
        if segment is not None:
            found.append(segment)
            if segment.parent is not None and segment.parent not in rows.keys() | seen:
                seen.add(segment.parent)
                waiting.append(segment.parent)
    return found
