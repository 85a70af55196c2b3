"""Beginnings of memories, found by the text that a prompt begins with."""

from hypothesis import given
from hypothesis import strategies as st

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
        brood.add("", each)
        brood.add("", each)
    assert {s.id for s in brood.likely("", LONG + "b", 0)} == {same.id, short.id}
    assert brood.likely("", "else", 0) == []
    assert brood.likely("elsewhere", LONG, 0) == []
    assert [s.id for s in brood.likely("", "..<start>", 2)] == [short.id]
    brood.remove("", same)
    brood.remove("", same)
    assert [s.id for s in brood.likely("", LONG, 0)] == [short.id]


def test_what_somebody_leaves_inside_is_always_looked_at() -> None:
    brood = Brood()
    left = root(LONG)
    brood.add("", left)
    assert brood.likely("", LONG[:20] + "other", 0) == []
    brood.leave("", left)
    assert brood.likely("", LONG[:20] + "other", 0) == [left]
    brood.remove("", left)
    assert brood.likely("", LONG[:20] + "other", 0) == []


@given(st.lists(st.text("ab", max_size=40), max_size=12), st.text("ab", max_size=60))
def test_all_that_a_prompt_begins_with_are_found_and_hardly_others(
    texts: list[str], rendered: str
) -> None:
    brood = Brood()
    segments = [root(text, token=n) for n, text in enumerate(texts)]
    for each in segments:
        brood.add("here", each)
    found = {s.id for s in brood.likely("here", rendered, 0)}
    assert found >= {s.id for s in segments if rendered.startswith(s.text)}
    for each in segments:
        if each.id in found:
            assert rendered.startswith(each.text[: (len(each.text) + 1) // 2])
    for each in segments:
        brood.remove("here", each)
    assert brood.likely("here", rendered, 0) == []


def test_a_thousand_that_open_alike_and_go_on_differently_are_told_apart() -> None:
    brood = Brood()
    for number in range(1000):
        brood.add("system", root(f"{LONG} {number} {LONG}", token=number))
    assert len(brood.likely("system", f"{LONG} 77 {LONG} and more", 0)) == 1
