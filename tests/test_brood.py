"""Beginnings of memories, found by the text that a prompt begins with."""

from greenroom.runtime.brood import Brood
from greenroom.runtime.segments import Kind, Segment, make_segment

LONG = "<start>system\\n" + "rules and more rules " * 9


def root(text: str, kind: Kind = "system", token: int = 1) -> Segment:
    return make_segment(
        parent=None,
        start=0,
        tokens=(token,),
        text=text,
        kind=kind,
        namespace="",
        fingerprint="f",
        codec="float/1",
    )


def test_only_what_opens_alike_is_looked_at() -> None:
    brood = Brood()
    same, other, short = root(LONG + "a"), root("<start>user" + LONG), root("<start>", token=2)
    for each in (same, other, short):
        brood.add(each)
    assert {s.id for s in brood.likely(LONG + "b", 0)} == {same.id, short.id}
    assert brood.likely("else", 0) == []
    assert [s.id for s in brood.likely("..<start>", 2)] == [short.id]
    brood.remove(same)
    brood.remove(same)
    assert [s.id for s in brood.likely(LONG, 0)] == [short.id]


def test_what_somebody_leaves_inside_is_always_looked_at() -> None:
    brood = Brood()
    left = root(LONG)
    brood.add(left)
    assert brood.likely(LONG[:20] + "other", 0) == []
    brood.leave(left)
    assert brood.likely(LONG[:20] + "other", 0) == [left]
    brood.remove(left)
    assert brood.likely(LONG[:20] + "other", 0) == []
