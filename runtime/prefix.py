"""The longest remembered prefix of a prompt: a compressed radix tree over token ids. Pure.

A match costs time in the length of the prompt and the number of segments on its path, however many
agents there are: children are found by their first token, and an edge is compared as bytes.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from greenroom.runtime.segments import Segment, Tokens, pack_tokens

_WIDTH = 4  # bytes of one packed token


class Match(msgspec.Struct, frozen=True):
    """The first ``length`` tokens, as (segment id, tokens used of it) from the root on."""

    pieces: tuple[tuple[str, int], ...]
    length: int


class _Entry:
    """A segment in the tree: ``node`` is where its last token is."""

    __slots__ = ("children", "end", "id", "node", "parent", "start")

    def __init__(self, segment: Segment, parent: "_Entry | None", node: "_Node") -> None:
        self.id = segment.id
        self.parent = parent
        self.start = segment.start
        self.end = segment.end
        self.node = node
        self.children: dict[str, _Entry] = {}


class _Node:
    """An edge and its lower end. Each of ``entries`` has all of the edge's tokens, and those that
    are ``ending`` have none after them.

    No node but a root is without entries: what covers a node's child covers the node too.
    """

    __slots__ = ("children", "end", "ending", "entries", "label", "parent")

    def __init__(self, label: bytes, parent: "_Node | None") -> None:
        self.label = label
        self.parent = parent
        self.end: int = (parent.end if parent else 0) + len(label) // _WIDTH
        self.children: dict[bytes, _Node] = {}
        self.entries: dict[str, _Entry] = {}
        self.ending: dict[str, _Entry] = {}

    @property
    def start(self) -> int:
        return self.end - len(self.label) // _WIDTH

    def split(self, num_tokens: int) -> "_Node":
        """Cut the edge after its first tokens; returns the new upper node."""
        assert self.parent is not None
        at = num_tokens * _WIDTH
        upper = _Node(self.label[:at], self.parent)
        upper.entries = dict(self.entries)
        self.parent.children[self.label[:_WIDTH]] = upper
        upper.children[self.label[at : at + _WIDTH]] = self
        self.label = self.label[at:]
        self.parent = upper
        return upper


class PrefixTree:
    """Segments by the tokens of their whole chain, apart for each namespace."""

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, segment_id: object) -> bool:
        return segment_id in self._entries

    def insert(self, segment: Segment) -> None:
        """Add a segment; one that is there already stays as it is.

        Raises ValueError when its parent is not in the tree or does not reach its start.
        """
        if segment.id in self._entries:
            return
        parent = None
        node = self._roots.get(segment.namespace)
        if node is None:
            node = self._roots[segment.namespace] = _Node(b"", None)
        if segment.parent is not None:
            parent = self._entries.get(segment.parent)
            if parent is None or not parent.start < segment.start <= parent.end:
                raise ValueError(f"{segment.parent} does not reach {segment.start}")
            node = _node_ending_at(parent, segment.start)
        entry = _Entry(segment, parent, node)
        entry.node = _descend(node, segment.token_bytes, entry)
        entry.node.ending[segment.id] = entry
        self._entries[segment.id] = entry
        if parent is not None:
            parent.children[segment.id] = entry

    def remove(self, segment: Segment) -> tuple[str, ...]:
        """Take out a segment and all whose chains need it; returns their ids, deepest first."""
        entry = self._entries.get(segment.id)
        if entry is None:
            return ()
        doomed = [entry]
        for each in doomed:
            doomed.extend(each.children.values())
        for each in reversed(doomed):
            _release(each)
            del self._entries[each.id]
        if entry.parent is not None:
            del entry.parent.children[entry.id]
        root = self._roots.get(segment.namespace)
        if root is not None and not root.children:
            del self._roots[segment.namespace]
        return tuple(each.id for each in reversed(doomed))

    def match(self, namespace: str, tokens: Sequence[int] | Tokens, shortest_cut: int = 1) -> Match:
        """The longest prefix of ``tokens`` that segments of the namespace hold.

        Where several hold it, one that ends there is taken, or else the one that came first. A cut
        of fewer than ``shortest_cut`` tokens gives way to the last that is whole before it, but to
        nothing before what it goes on from.
        """
        wanted = pack_tokens(tokens)
        node = self._roots.get(namespace)
        at, deepest = 0, node
        while node is not None and (child := node.children.get(wanted[at : at + _WIDTH])):
            common = common_prefix(child.label, wanted[at : at + len(child.label)])
            at, deepest = at + common, child
            node = child if common == len(child.label) else None
        if not at or deepest is None:
            return Match((), 0)
        entry, length = _standing(deepest, at // _WIDTH, shortest_cut)
        return Match(tuple(reversed(list(_pieces(entry, length)))), length)


def _standing(node: _Node, length: int, shortest_cut: int) -> tuple[_Entry | None, int]:
    """The segment in which a match ends that reaches ``length`` on this node's edge, and where."""
    if length == node.end and node.ending:
        return _first(node.ending), length
    cut = _first(node.entries)
    if length - cut.start >= shortest_cut:
        return cut, length
    above = node.parent
    while above is not None and above.end >= cut.start:
        if above.ending:
            return _first(above.ending), above.end
        above = above.parent
    return cut.parent, cut.start


def _first(entries: dict[str, _Entry]) -> _Entry:
    return next(iter(entries.values()))


def _pieces(entry: _Entry | None, stop: int) -> Iterator[tuple[str, int]]:
    while entry is not None:
        yield entry.id, stop - entry.start
        stop, entry = entry.start, entry.parent


def _node_ending_at(entry: _Entry, position: int) -> _Node:
    """The node on the entry's path whose last token is the one before ``position``."""
    node = entry.node
    while node.start >= position:
        assert node.parent is not None
        node = node.parent
    return node if node.end == position else node.split(position - node.start)


def _descend(node: _Node, rest: bytes, entry: _Entry) -> _Node:
    """Lay the entry's tokens below ``node``, along what is there; returns where they end."""
    while rest:
        child = node.children.get(rest[:_WIDTH])
        if child is None:
            child = node.children[rest[:_WIDTH]] = _Node(rest, node)
        common = common_prefix(child.label, rest)
        if common < len(child.label):
            child = child.split(common // _WIDTH)
        child.entries[entry.id] = entry
        node, rest = child, rest[common:]
    return node


def _release(entry: _Entry) -> None:
    """Take the entry off its nodes, and the nodes that hold nothing off the tree."""
    node = entry.node
    del node.ending[entry.id]
    while node.end > entry.start:
        assert node.parent is not None
        del node.entries[entry.id]
        if not node.entries:
            del node.parent.children[node.label[:_WIDTH]]
        node = node.parent


def common_prefix(one: bytes, two: bytes) -> int:
    """Length in bytes of the common prefix, in whole tokens."""
    size = min(len(one), len(two))
    if one[:size] == two[:size]:
        return size
    differ = np.frombuffer(one, "<u4", size // _WIDTH) != np.frombuffer(two, "<u4", size // _WIDTH)
    return int(differ.argmax()) * _WIDTH
