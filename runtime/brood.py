"""The segments with which the memories of one namespace begin, found by their text. Pure."""

from greenroom.runtime.segments import Segment

_OPENING = 96  # characters: more than all that a template prints before anybody's own words


class Brood:
    """However many there are, those that may be next on a prompt's way are found at once.

    By how their text opens, except answers (which a client may not send back as they were) and
    those that some other segment goes on from within: these are few, and always looked at.
    """

    def __init__(self) -> None:
        self._by_opening: dict[str, dict[str, Segment]] = {}
        self._lengths: dict[int, int] = {}
        self._always: dict[str, Segment] = {}

    def add(self, segment: Segment) -> None:
        """Have a segment."""
        if segment.kind == "generation":
            self._always[segment.id] = segment
        opening = segment.text[:_OPENING]
        if opening not in self._by_opening:
            self._by_opening[opening] = {}
            self._lengths[len(opening)] = self._lengths.get(len(opening), 0) + 1
        self._by_opening[opening][segment.id] = segment

    def leave(self, segment: Segment) -> None:
        """Some other segment goes on from within this one."""
        self._always[segment.id] = segment

    def remove(self, segment: Segment) -> None:
        """Have a segment no more."""
        self._always.pop(segment.id, None)
        opening = segment.text[:_OPENING]
        same = self._by_opening.get(opening, {})
        if same.pop(segment.id, None) is not None and not same:
            del self._by_opening[opening]
            self._lengths[len(opening)] -= 1
            if not self._lengths[len(opening)]:
                del self._lengths[len(opening)]

    def likely(self, rendered: str, at: int) -> list[Segment]:
        """Those that a prompt may follow at this place."""
        found = dict(self._always)
        for length in self._lengths:
            found |= self._by_opening.get(rendered[at : at + length], {})
        return list(found.values())
