"""Tails and states that are dropped are missed by nobody who goes on from where they may."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.resume import Link, resume_at
from greenroom.runtime.segments import Segment, chain
from greenroom.runtime.supersede import BOUNDARIES, superseded
from tests.backstage import segment


@st.composite
def forests(draw: st.DrawFn) -> list[Segment]:
    """Segments made one after the other, children maybe from inside their parents."""
    made: list[Segment] = []
    for number in range(draw(st.integers(1, 12))):
        parent = made[at] if (at := draw(st.integers(-1, number - 1))) >= 0 else None
        tokens = [number] * draw(st.integers(1, 9))
        start = draw(st.integers(parent.start + 1, parent.end)) if parent else 0
        kind = draw(st.sampled_from(["system", "prompt", "generation"]))
        made.append(segment(parent, tokens, start=start, kind=kind))
    return made


def resumed(head: str, known: dict[str, Segment], gone: frozenset[str], window: int) -> int:
    """Where a chain can be taken up again at most, with both a window and a state."""
    links = [
        Link(
            piece.segment.num_tokens,
            piece.used,
            {window: 0 if piece.segment.id in gone else min(piece.segment.num_tokens, window)},
            () if piece.segment.id in gone else (piece.segment.num_tokens,),
        )
        for piece in chain(head, known)
    ]
    windows = [window] if window else []
    return resume_at(links, windows, stateful=True, limit=known[head].end)


@given(forests(), st.integers(0, 12), st.data())
def test_whoever_may_go_on_goes_on_as_if_nothing_had_gone(
    made: list[Segment], window: int, data: st.DataObject
) -> None:
    known = {each.id: each for each in made}
    heads = data.draw(st.lists(st.sampled_from(sorted(known)), max_size=3))
    gone = superseded(known, heads, window)
    parents = [each.parent for each in made]
    ends = {*heads, *(each for each in known if each not in parents)}
    shared = {e for e in known if parents.count(e) > 1 or known[e].kind == "system"}
    for end in ends | shared:
        assert resumed(end, known, gone, window) == resumed(end, known, frozenset(), window)
    for end in ends:
        for piece in chain(end, known)[-BOUNDARIES:]:
            each = piece.segment.id
            assert resumed(each, known, gone, window) == resumed(each, known, frozenset(), window)


def test_of_a_long_conversation_only_the_end_and_the_system_prompt_are_left() -> None:
    made = [segment(None, [0] * 9, kind="system")]
    for number in range(1, 30):
        made.append(segment(made[-1], [number] * 9))
    known = {each.id: each for each in made}
    left = known.keys() - superseded(known, [made[-1].id], 0)
    assert left == {made[0].id, *(each.id for each in made[-BOUNDARIES:])}
    left = known.keys() - superseded(known, [made[-1].id], 18)
    assert left == {made[0].id, *(each.id for each in made[-BOUNDARIES - 1 :])}
