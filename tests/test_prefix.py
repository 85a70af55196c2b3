"""The radix tree against a model that compares whole histories one by one."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime import prefix
from greenroom.runtime.prefix import Match, PrefixTree
from greenroom.runtime.segments import (
    Segment,
    chain,
    chain_tokens,
    cut,
    make_segment,
)


def segment(parent: Segment | None, start: int, tokens: list[int], **over: Any) -> Segment:
    fields: dict[str, Any] = {
        "kind": "prompt",
        "namespace": "n",
        "fingerprint": "f",
        "codec": "float/1",
    }
    parent_id = parent.id if parent else None
    return make_segment(parent=parent_id, start=start, tokens=tokens, **{**fields, **over})


def common(one: list[int], two: list[int]) -> int:
    length = 0
    while length < min(len(one), len(two)) and one[length] == two[length]:
        length += 1
    return length


# Three token values, so that histories share prefixes, diverge within edges and coincide.
runs = st.lists(st.integers(0, 2), min_size=1, max_size=5)
queries = st.lists(st.integers(0, 2), max_size=14)


class Model:
    """Segments by id, and the whole history that each stands for."""

    def __init__(self) -> None:
        self.tree = PrefixTree()
        self.segments: dict[str, Segment] = {}

    def history(self, segment_id: str) -> list[int]:
        return [int(t) for t in chain_tokens(chain(segment_id, self.segments))]

    def grow(self, data: st.DataObject, number: int) -> None:
        namespace = data.draw(st.sampled_from("nm"))
        own = [s for s in self.segments.values() if s.namespace == namespace]
        origin = data.draw(st.sampled_from([None, *own]))
        pieces = chain(origin.id if origin else None, self.segments)
        length = data.draw(st.integers(0, origin.end if origin else 0))
        kept = cut(pieces, length)
        # The message makes twins: two segments with the same tokens in the same place.
        made = segment(
            kept[-1].segment if kept else None,
            length,
            data.draw(runs),
            namespace=namespace,
            messages=({"n": number},) if data.draw(st.booleans()) else (),
        )
        self.tree.insert(made)
        self.segments[made.id] = made

    def shrink(self, data: st.DataObject) -> None:
        victim = data.draw(st.sampled_from(list(self.segments.values())))
        removed = self.tree.remove(victim)
        for segment_id in removed:
            parent = self.segments.pop(segment_id).parent
            assert parent in self.segments or parent is None or segment_id == victim.id
        assert removed[-1] == victim.id
        assert all(s.parent is None or s.parent in self.segments for s in self.segments.values())

    def check(self, namespace: str, tokens: list[int]) -> None:
        own = [s for s in self.segments.values() if s.namespace == namespace]
        longest = max((common(self.history(s.id), tokens) for s in own), default=0)
        found = self.tree.match(namespace, tokens)
        assert found.length == longest
        assert sum(used for _, used in found.pieces) == longest
        at = 0
        parent = None
        for segment_id, used in found.pieces:
            piece = self.segments[segment_id]
            assert (piece.parent, piece.start) == (parent, at)
            assert piece.tokens[:used].tolist() == tokens[at : at + used]
            at, parent = at + used, segment_id
        assert found == self.tree.match(namespace, tokens)
        self.check_cut(own, tokens, found, shortest_cut=3)

    def check_cut(
        self, own: list[Segment], tokens: list[int], longest: Match, shortest_cut: int
    ) -> None:
        """Nothing that is whole is passed by for a short cut, nor any more than that given up."""
        found = self.tree.match(own[0].namespace if own else "", tokens, shortest_cut)
        ends = {s.id: s.end for s in own if self.history(s.id) == tokens[: s.end]}
        assert max(ends.values(), default=0) <= found.length <= longest.length
        assert longest.length - found.length < shortest_cut
        assert sum(used for _, used in found.pieces) == found.length
        if found.length in ends.values():
            assert ends.get(found.pieces[-1][0]) == found.length
        elif found.pieces and found.pieces[-1][1] < shortest_cut:  # somebody stood there before
            segment_id, used = found.pieces[-1]
            start = self.segments[segment_id].start + used
            assert any((s.parent, s.start) == (segment_id, start) for s in own)


@settings(max_examples=150)
@given(st.data(), st.lists(st.booleans(), max_size=16), st.lists(queries, min_size=1, max_size=6))
def test_matches_like_comparing_every_history(
    data: st.DataObject, steps: list[bool], wanted: list[list[int]]
) -> None:
    model = Model()
    for number, remove in enumerate(steps):
        if remove and model.segments:
            model.shrink(data)
        else:
            model.grow(data, number)
        assert len(model.tree) == len(model.segments)
    for tokens in wanted:
        model.check("n", tokens)
        model.check("m", tokens)
    for segment_id, each in model.segments.items():
        model.check(each.namespace, model.history(segment_id))


def test_namespaces_do_not_see_each_other() -> None:
    tree = PrefixTree()
    tree.insert(segment(None, 0, [1, 2, 3]))
    assert tree.match("m", [1, 2, 3]) == Match((), 0)
    assert tree.match("n", [1, 2, 9]).length == 2


def test_the_first_of_two_twins_is_taken_until_it_goes() -> None:
    tree = PrefixTree()
    one = segment(None, 0, [1, 2, 3])
    two = segment(None, 0, [1, 2, 3], kind="heard")
    for each in (one, two, one):
        tree.insert(each)
    assert tree.match("n", [1, 2, 3]).pieces == ((one.id, 3),)
    tree.remove(one)
    assert tree.match("n", [1, 2, 3]).pieces == ((two.id, 3),)
    assert tree.remove(one) == ()
    tree.remove(two)
    assert tree.match("n", [1, 2, 3]).length == 0
    assert len(tree) == 0


def test_a_whole_segment_is_taken_before_the_cut_of_one_that_came_first() -> None:
    tree = PrefixTree()
    root = segment(None, 0, [1, 2])
    long = segment(root, 2, [3, 4, 5, 6, 7, 8])
    short = segment(root, 2, [3, 4, 5])
    for each in (root, long, short):
        tree.insert(each)
    assert tree.match("n", [1, 2, 3, 4, 5]).pieces == ((root.id, 2), (short.id, 3))
    assert tree.match("n", [1, 2, 3, 4, 5, 6]).pieces == ((root.id, 2), (long.id, 4))
    # Four tokens of the long one are too few to stand on, and all of the short one are not.
    assert tree.match("n", [1, 2, 3, 4, 5, 6], 5).pieces == ((root.id, 2), (short.id, 3))
    assert tree.match("n", [1, 2, 3, 4], 5).pieces == ((root.id, 2),)
    # Nor is what it goes on from passed by, nor, where that is cut, what is whole up to there.
    branch = segment(long, 6, [9, 9])
    tree.insert(branch)
    asked = [1, 2, 3, 4, 5, 6, 9]
    assert tree.match("n", asked, 2).pieces == ((root.id, 2), (long.id, 4))
    whole = segment(root, 2, [3, 4, 5, 6])
    tree.insert(whole)
    assert tree.match("n", asked, 2).pieces == ((root.id, 2), (whole.id, 4))
    for each in (whole, short):
        tree.remove(each)
    assert tree.match("n", [1, 2, 3, 4, 5], 4).pieces == ((root.id, 2),)


def test_an_orphan_is_refused() -> None:
    tree = PrefixTree()
    root = segment(None, 0, [1, 2, 3])
    with pytest.raises(ValueError, match="reach"):
        tree.insert(segment(root, 3, [4]))
    tree.insert(root)
    with pytest.raises(ValueError, match="reach"):
        tree.insert(segment(root, 5, [4]))
    assert segment(root, 2, [4]).id not in tree


def test_cost_does_not_grow_with_the_number_of_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the edges that a match compares, with one agent and with two thousand."""
    tree = PrefixTree()
    system = segment(None, 0, list(range(500)))
    tree.insert(system)
    compared = []

    def counting(one: bytes, two: bytes, real: Any = prefix.common_prefix) -> int:
        compared.append(len(one))
        length: int = real(one, two)
        return length

    for agent in range(2000):
        tree.insert(segment(system, 500, [1000 + agent, *range(30)]))
        if agent in (0, 1999):
            with monkeypatch.context() as patch:
                patch.setattr(prefix, "common_prefix", counting)
                compared.clear()
                found = tree.match("n", [*range(500), 1000 + agent, *range(30)])
            assert found.length == 531
            assert found.pieces[0] == (system.id, 500)
            assert len(compared) == 2


def test_a_branch_from_within_a_segment() -> None:
    tree = PrefixTree()
    system = segment(None, 0, list(range(500)))
    branch = segment(system, 250, [7, 7])
    tree.insert(system)
    tree.insert(branch)
    assert tree.match("n", [*range(250), 7, 7, 7]).pieces == ((system.id, 250), (branch.id, 2))
    assert tree.match("n", range(600)).pieces == ((system.id, 500),)
