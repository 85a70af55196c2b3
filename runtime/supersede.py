"""Which tails of windows and which states nobody needs any more. Pure.

Whoever goes on from a segment needs its states, and as many rows before it as a window is long. An
agent goes on from where it stands, or, when the last turns are edited, from a little before that;
anybody may begin at the end of a system prompt or where others have parted ways.
"""

from collections.abc import Iterable, Mapping

from greenroom.runtime.segments import Segment

BOUNDARIES = 4
"""Segments before an agent's head to which it may go back without computing anything: the last two
turns, prompt and answer."""


def superseded(segments: Mapping[str, Segment], ends: Iterable[str], window: int) -> frozenset[str]:
    """Ids of the segments whose tails and states can go.

    ``ends`` are where agents stand and what is pinned or held; segments that nothing follows count
    as such, as long as they are kept. ``window`` is the longest of the model's windows, 0 if none.
    """
    children: dict[str, int] = {}
    for each in segments.values():
        if each.parent is not None:
            children[each.parent] = children.get(each.parent, 0) + 1
    needed: set[str] = set()
    leaves = [each for each in segments if each not in children]
    for end in {*ends, *leaves}:
        needed.update(_before(segments, end, BOUNDARIES, window))
    for each in segments.values():
        if each.kind == "system" or children.get(each.id, 0) > 1:
            needed.update(_before(segments, each.id, 1, window))
    return frozenset(segments.keys() - needed)


def _before(segments: Mapping[str, Segment], end: str, boundaries: int, window: int) -> set[str]:
    """The last ``boundaries`` segments up to ``end``, and a window before the end of the first of
    them."""
    found: set[str] = set()
    each, stop = segments.get(end), None
    reach = 0
    while each is not None:
        upto = each.end if stop is None else stop
        if boundaries > 0:
            reach = upto - window
            boundaries -= 1
        elif upto <= reach:
            break
        found.add(each.id)
        stop = each.start
        each = segments.get(each.parent) if each.parent is not None else None
    return found
