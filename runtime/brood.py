"""Segments by what they go on from and by how their text opens. Pure."""

from greenroom.runtime.segments import Segment


class Brood:
    """However many go on from one place, those that may be next on a prompt's way are found at
    once.

    A place is whatever segments go on from. They are found by how their text opens, except answers
    (which a client may not send back as they were) and those that some other segment goes on from
    within: these are few, and always looked at.
    """

    def __init__(self) -> None:
        # By a hash of place and opening: who finds something looks at its text anyway.
        self._by_opening: dict[int, dict[str, Segment]] = {}
        self._sizes: dict[int, int] = {}  # of openings, and how many are of this size
        self._always: dict[str, dict[str, Segment]] = {}

    def add(self, place: str, segment: Segment) -> None:
        """Have a segment that goes on from ``place``."""
        if segment.kind == "generation":
            self.leave(place, segment)
        size = _size(segment.text)
        key = _key(place, segment.text[:size])
        if key not in self._by_opening:
            self._by_opening[key] = {}
            self._sizes[size] = self._sizes.get(size, 0) + 1
        self._by_opening[key][segment.id] = segment

    def leave(self, place: str, segment: Segment) -> None:
        """Some other segment goes on from within this one."""
        self._always.setdefault(place, {})[segment.id] = segment

    def remove(self, place: str, segment: Segment) -> None:
        """Have a segment no more."""
        always = self._always.get(place, {})
        if always.pop(segment.id, None) is not None and not always:
            del self._always[place]
        size = _size(segment.text)
        key = _key(place, segment.text[:size])
        same = self._by_opening.get(key, {})
        if same.pop(segment.id, None) is not None and not same:
            del self._by_opening[key]
            self._sizes[size] -= 1
            if not self._sizes[size]:
                del self._sizes[size]

    def likely(self, place: str, rendered: str, at: int) -> list[Segment]:
        """Those that a prompt, which has come to ``place``, may follow from there."""
        found = dict(self._always.get(place, {}))
        for size in self._sizes:
            opening = rendered[at : at + size]
            if len(opening) == size:
                found |= self._by_opening.get(_key(place, opening), {})
        return list(found.values())


def _size(text: str) -> int:
    """How much of a text is its opening: the half of it at least, in few sizes for all texts."""
    return 1 << (len(text).bit_length() - 1) if text else 0


def _key(place: str, opening: str) -> int:
    return hash((place, opening))
