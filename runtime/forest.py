"""Everybody's memory, as trees of segments: which chains there are, and who stands where. Pure."""

from collections.abc import Collection, Sequence

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
        self._children: dict[str, dict[str, Segment]] = {}
        self._prefixes = PrefixTree()
        self._lost_roots = PrefixTree()  # who began there is still known by that

    def __len__(self) -> int:
        return len(self._segments)

    def num_bytes(self, without: Collection[str] = ()) -> int:
        """Bytes of all payloads, as written, but for those of the segments ``without`` them."""
        return sum(s.num_bytes for s in self._segments.values() if s.id not in without)

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
        that is not ``stored`` has its place in chains, and matches nothing."""
        if segment.parent is not None and segment.parent not in self._segments:
            return
        self._segments[segment.id] = segment
        if segment.parent is not None:
            self._children.setdefault(segment.parent, {})[segment.id] = segment
        grounded = stored and (segment.parent is None or segment.parent in self._prefixes)
        if segment.fingerprint != self._fingerprint:
            return
        if grounded:
            self._prefixes.insert(segment)
        elif segment.parent is None:
            self._lost_roots.insert(segment)

    def lose(self, segment_id: str) -> None:
        """A segment's bytes are lost: match it no more, nor what was computed on top of it.

        Their records stay: chains go on from transcripts and token ids, computed anew. Adding
        the segment again, with new bytes, makes it match again.
        """
        segment = self._segments.get(segment_id)
        if segment is not None and self._prefixes.remove(segment) and segment.parent is None:
            self._lost_roots.insert(segment)

    def remove(self, segment_id: str) -> None:
        """Know a segment no more; nothing that is known may stand on it."""
        segment = self._segments.get(segment_id)
        if segment is None:
            return
        self._prefixes.remove(segment)
        self._lost_roots.remove(segment)
        del self._segments[segment_id]
        self._children.pop(segment_id, None)
        if segment.parent is not None:
            siblings = self._children.get(segment.parent, {})
            siblings.pop(segment_id, None)
            if not siblings:
                self._children.pop(segment.parent, None)

    def chain(self, head: str | None) -> tuple[Piece, ...]:
        """The chain that ends at ``head``; empty when any of it is lost."""
        try:
            return chain(head, self._segments)
        except BrokenChain:
            return ()

    def match(self, namespace: str, tokens: Sequence[int]) -> tuple[Piece, ...]:
        """The longest remembered prefix of ``tokens`` in a namespace, in pieces from the root.

        A last piece of only a few tokens is left out: to stand on a scrap of somebody's question
        would tie two agents' memories together and save nothing.
        """
        found = self._prefixes.match(namespace, tokens)
        pieces = tuple(Piece(self._segments[i], used) for i, used in found.pieces)
        if pieces and pieces[-1].used < min(pieces[-1].segment.num_tokens, SHORTEST_CUT):
            return pieces[:-1]
        return pieces

    def stand(self, namespace: str, tokens: Sequence[int], rendered: str) -> list[str]:
        """The ids of the segments that a prompt passes whole, the deepest first.

        By token ids as far as they go, and from there by text: an answer that was sampled in
        other tokens than the tokenizer would choose is the same answer.
        """
        path: list[str] = []
        at = 0
        for piece in self.match(namespace, tokens) or self._lost_root(namespace, tokens):
            if piece.used < piece.segment.num_tokens:
                break
            path.append(piece.segment.id)
            at += len(piece.segment.text)
        while path:
            child = self._continued(path[-1], rendered, at)
            if child is None:
                break
            path.append(child.id)
            at += len(child.text)
        return path[::-1]

    def _lost_root(self, namespace: str, tokens: Sequence[int]) -> tuple[Piece, ...]:
        found = self._lost_roots.match(namespace, tokens)
        return tuple(Piece(self._segments[i], used) for i, used in found.pieces)

    def _continued(self, parent: str, rendered: str, at: int) -> Segment | None:
        end = self._segments[parent].end
        for child in self._children.get(parent, {}).values():
            whole = child.start == end and child.fingerprint == self._fingerprint
            if whole and child.text and rendered.startswith(child.text, at):
                return child
        return None
