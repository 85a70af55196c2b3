"""Everybody's memory, as trees of segments: which chains there are, and who stands where. Pure."""

import bisect
from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from greenroom.runtime.brood import Brood
from greenroom.runtime.prefix import PrefixTree
from greenroom.runtime.segments import BrokenChain, Piece, Segment, chain

SHORTEST_CUT = 32
"""Tokens that a cut of a segment must hold to be worth standing on."""


class Forest:
    """The segments that are known, by id, by parent and by prefix.

    Only segments of the served model (``fingerprint``) are matched: tokens and states of another
    mean nothing to it. The others keep their transcripts.
    """

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._segments: dict[str, Segment] = {}
        self._lost: set[str] = set()  # known by what they say, without bytes
        self._children: dict[str, dict[str, Segment]] = {}
        self._within: dict[str, dict[str, Segment]] = {}  # the children that begin inside
        self._brood = Brood()
        self._prefixes = PrefixTree()

    def __len__(self) -> int:
        return len(self._segments)

    def num_bytes(self) -> int:
        """Bytes of all payloads that are stored, as written."""
        return sum(s.num_bytes for s in self._segments.values() if s.id not in self._lost)

    def is_stored(self, segment_id: str) -> bool:
        """Whether a segment is known with its bytes."""
        return segment_id in self._segments and segment_id not in self._lost

    def __contains__(self, segment_id: object) -> bool:
        return segment_id in self._segments

    def scope(self, segment_id: str) -> str | None:
        """The namespace of a segment; None for one that is not known."""
        segment = self._segments.get(segment_id)
        return segment.namespace if segment is not None else None

    def everything(self) -> dict[str, Segment]:
        """All segments that are known, by id."""
        return dict(self._segments)

    def add(self, segment: Segment, *, stored: bool = True) -> None:
        """Know a segment. One whose parent is not known has lost its chain, and is left out; one
        that is not ``stored`` has its place in chains, and matches nothing, nor does what goes on
        from it until it is added again with its bytes."""
        if segment.parent is not None and segment.parent not in self._segments:
            return
        self._segments[segment.id] = segment
        if segment.parent is None:
            self._brood.add(_place(segment), segment)
        else:
            self._grow(self._segments[segment.parent], segment)
        if not stored:
            self._lost.add(segment.id)
            return
        self._lost.discard(segment.id)
        if segment.id not in self._prefixes:
            self._ground(segment)

    def _ground(self, segment: Segment) -> None:
        """Match a segment if it stands on such as are matched, and what is stored on top of it."""
        waiting = deque([segment])
        while waiting:
            each = waiting.popleft()
            grounded = each.parent is None or each.parent in self._prefixes
            if grounded and each.id not in self._lost and each.fingerprint == self._fingerprint:
                self._prefixes.insert(each)
                waiting += self._children.get(each.id, {}).values()

    def _grow(self, parent: Segment, child: Segment) -> None:
        self._children.setdefault(parent.id, {})[child.id] = child
        if not self._is_within(child):
            self._brood.add(_place(child), child)
            return
        self._within.setdefault(parent.id, {})[child.id] = child
        if not self._is_within(parent):
            self._brood.leave(_place(parent), parent)

    def _is_within(self, segment: Segment) -> bool:
        """Whether it goes on from within its parent."""
        return segment.parent is not None and segment.start < self._segments[segment.parent].end

    def lose(self, segment_id: str) -> None:
        """A segment's bytes are lost: match it no more, nor what was computed on top of it.

        Their records stay: chains go on from transcripts and token ids, computed anew. Adding
        the segment again, with new bytes, makes both match again.
        """
        segment = self._segments.get(segment_id)
        if segment is not None:
            self._lost.add(segment_id)
            self._prefixes.remove(segment)

    def remove(self, segment_id: str) -> None:
        """Know a segment no more; nothing that is known may stand on it."""
        segment = self._segments.get(segment_id)
        if segment is None:
            return
        self._prefixes.remove(segment)
        del self._segments[segment_id]
        self._lost.discard(segment_id)
        self._children.pop(segment_id, None)
        self._brood.remove(_place(segment), segment)
        self._within.pop(segment_id, None)
        if segment.parent is None:
            return
        for kin in (self._children, self._within):
            siblings = kin.get(segment.parent, {})
            siblings.pop(segment_id, None)
            if not siblings:
                kin.pop(segment.parent, None)

    def chain(self, head: str | None) -> tuple[Piece, ...]:
        """The chain that ends at ``head``; empty when any of it is lost."""
        try:
            return chain(head, self._segments)
        except BrokenChain:
            return ()

    def onward(self, segment_id: str) -> Iterator[str]:
        """The ids of a segment and of all that goes on from it, the nearest first."""
        waiting = deque([segment_id])
        while waiting:
            yield (each := waiting.popleft())
            waiting += self._children.get(each, {})

    def match(self, namespace: str, tokens: Sequence[int]) -> tuple[Piece, ...]:
        """The longest remembered prefix of ``tokens`` in a namespace, in pieces from the root.

        A last piece of only a few tokens is left out: to stand on a scrap of somebody's question
        would tie two agents' memories together and save nothing.
        """
        found = self._prefixes.match(namespace, tokens, SHORTEST_CUT)
        return tuple(Piece(self._segments[i], used) for i, used in found.pieces)

    def stand(self, namespace: str, rendered: str) -> list[str]:
        """The ids of the segments that a prompt passes whole, the deepest first."""
        whole = [p for p in self.trace(namespace, rendered) if p.used == p.segment.num_tokens]
        return [piece.segment.id for piece in reversed(whole)]

    def trace(self, namespace: str, rendered: str) -> tuple[Piece, ...]:
        """The chain that a prompt follows as text, from the root as far as it goes.

        By text, since an answer that was sampled in other tokens than the tokenizer would choose
        is the same answer; what an answer begins or ends with (space, reasoning) may be missing.
        """
        way: list[_Step] = []
        while onward := self._onward(way[-1] if way else None, namespace, rendered):
            way += onward
        return tuple(Piece(step.segment, step.used) for step in way)

    def _onward(self, last: "_Step | None", namespace: str, rendered: str) -> "tuple[_Step, ...]":
        """The next segment on a prompt's way; or the two, where it leaves the first one inside."""
        begin = last.stop if last else 0
        ways: list[tuple[_Step, ...]] = []
        place = last.segment.id if last else _beginning(namespace)
        for child in self._brood.likely(place, rendered, begin):
            if not child.text or child.fingerprint != self._fingerprint:
                continue
            stop = passed(child, rendered, begin)
            if stop is not None:
                ways.append((_Step(child, child.num_tokens, stop),))
            else:
                ways += self._leaving(child, begin, rendered)
        return max(ways, key=lambda way: way[-1].stop, default=())

    def _leaving(
        self, segment: Segment, begin: int, rendered: str
    ) -> "Iterator[tuple[_Step, ...]]":
        """The ways from within a segment of which the prompt has only the beginning."""
        leaving = [child for child in self._within.get(segment.id, {}).values() if child.text]
        size = _common(segment.text, rendered, begin) if leaving else 0
        for child in leaving:
            at = rendered.rfind(child.text, begin, begin + size + len(child.text))
            if at > begin:
                cut = _Step(segment, child.start - segment.start, at)
                yield cut, _Step(child, child.num_tokens, at + len(child.text))


def _place(segment: Segment) -> str:
    """What a segment goes on from."""
    return segment.parent or _beginning(segment.namespace)


def _beginning(namespace: str) -> str:
    return f"beginning of {namespace}"  # no segment's id


class _Step(msgspec.Struct, frozen=True):
    """A segment on a prompt's way; ``stop`` is where its ``used`` tokens end in the prompt."""

    segment: Segment
    used: int
    stop: int


def passed(segment: Segment, rendered: str, at: int) -> int | None:
    """Where a segment's text ends that begins at this place of a prompt; None if it does not.

    An answer's may do so without what surrounds what was said: a client may have stripped spaces
    and reasoning.
    """
    last = segment.messages[-1] if segment.messages else {}
    said = str(last.get("content", "")).strip() if segment.kind == "generation" else ""
    if rendered.startswith(segment.text, at):
        at += len(segment.text)
        cut_short = bool(said) and segment.text.rstrip().endswith(said)
        return _after_space(rendered, at) if cut_short else at
    at = _after_space(rendered, at)
    if not said or said not in segment.text or not rendered.startswith(said, at):
        return None
    at = _after_space(rendered, at + len(said))
    end = segment.text.rpartition(said)[2].strip()
    if not end and rendered[at : at + 1].isalnum():
        return None  # it was cut short, and this one goes on
    return at + len(end) if rendered.startswith(end, at) else None


def _common(text: str, rendered: str, at: int) -> int:
    """How much of the text there is at this place of a prompt."""
    return bisect.bisect_left(
        range(len(text)), True, key=lambda n: not rendered.startswith(text[: n + 1], at)
    )


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
