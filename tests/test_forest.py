"""Who remembers what: matching by tokens, standing by text, and losing."""

from greenroom.runtime.forest import SHORTEST_CUT, Forest
from greenroom.runtime.segments import Segment, chain_length, make_segment

SYSTEM = tuple(range(40))


def segment(
    parent: Segment | None,
    tokens: tuple[int, ...],
    text: str = "",
    *,
    cut: int | None = None,
    fingerprint: str = "f",
    namespace: str = "",
) -> Segment:
    end = 0 if parent is None else parent.end
    return make_segment(
        parent=parent.id if parent else None,
        start=end if cut is None or parent is None else parent.start + cut,
        tokens=tokens,
        text=text,
        kind="prompt",
        namespace=namespace,
        fingerprint=fingerprint,
        codec="float/1",
    )


def forest(*segments: Segment) -> Forest:
    made = Forest("f")
    for each in segments:
        made.add(each)
    return made


def test_a_prompt_is_matched_along_a_chain() -> None:
    root = segment(None, SYSTEM)
    child = segment(root, (50, 51, 52))
    pieces = forest(root, child).match("", (*SYSTEM, 50, 51, 52, 60))
    assert [(p.segment.id, p.used) for p in pieces] == [(root.id, 40), (child.id, 3)]


def test_a_scrap_of_a_segment_is_not_matched_but_a_long_cut_is() -> None:
    root = segment(None, SYSTEM)
    child = segment(root, tuple(range(100, 200)))
    known = forest(root, child)
    assert len(known.match("", (*SYSTEM, *range(100, 100 + SHORTEST_CUT - 1), 7))) == 1
    pieces = known.match("", (*SYSTEM, *range(100, 100 + SHORTEST_CUT), 7))
    assert chain_length(pieces) == 40 + SHORTEST_CUT


def test_other_namespaces_and_other_models_are_not_matched() -> None:
    theirs = segment(None, SYSTEM, namespace="theirs")
    old = segment(None, SYSTEM, fingerprint="another model")
    known = forest(theirs, old)
    assert known.match("", SYSTEM) == ()
    assert len(known.match("theirs", SYSTEM)) == 1
    assert len(known.chain(old.id)) == 1, "its transcript is still there"


def test_one_stands_by_text_where_tokens_differ() -> None:
    root = segment(None, SYSTEM, "system ")
    asked = segment(root, (50, 51), "question ")
    said = segment(asked, (60, 61, 62, 63), "answer ")
    again = segment(said, (70,), "more ")
    known = forest(root, asked, said, again)
    retokenized = (*SYSTEM, 50, 51, 99, 98, 70)
    rendered = "system question answer more and new"
    assert known.stand("", retokenized, rendered) == [again.id, said.id, asked.id, root.id]
    assert known.stand("", retokenized, "system question another") == [asked.id, root.id]
    assert known.stand("", (1, 2, 3), rendered) == []


def test_one_does_not_stand_on_a_branch_that_leaves_inside() -> None:
    root = segment(None, SYSTEM, "system ")
    branch = segment(root, (5, 6), "x", cut=35)
    assert forest(root, branch).stand("", SYSTEM, "system x") == [root.id]


def test_a_segment_whose_bytes_are_lost_is_matched_no_more_but_its_chain_is_known() -> None:
    root = segment(None, SYSTEM)
    child = segment(root, (50, 51))
    grandchild = segment(child, (60,))
    sibling = segment(root, (70, 71))
    known = forest(root, child, grandchild, sibling)
    known.lose(child.id)
    assert chain_length(known.match("", (*SYSTEM, 50, 51, 60))) == 40
    assert chain_length(known.match("", (*SYSTEM, 70, 71))) == 42
    assert chain_length(known.chain(grandchild.id)) == 43, "what was said is not lost"
    known.lose(child.id)  # twice is once
    known.add(segment(grandchild, (80,)))  # of a turn that began before the loss
    assert chain_length(known.match("", (*SYSTEM, 50, 51, 60, 80))) == 40
    known.add(child)
    assert chain_length(known.match("", (*SYSTEM, 50, 51, 60))) == 42


def test_whose_bytes_are_all_evicted_is_still_known_by_its_words() -> None:
    root = segment(None, SYSTEM, "system ")
    asked = segment(root, (50, 51), "question ")
    known = forest(root, asked)
    known.lose(root.id)
    assert known.match("", (*SYSTEM, 50, 51)) == ()
    assert known.stand("", (*SYSTEM, 50, 51, 60), "system question more") == [asked.id, root.id]
    assert known.stand("", (*SYSTEM, 70), "system other") == [root.id]
    restarted = Forest("f")
    restarted.add(root, stored=False)
    restarted.add(asked, stored=False)
    assert restarted.stand("", (*SYSTEM, 50, 51), "system question and") == [asked.id, root.id]
    for each in (asked, root):
        restarted.remove(each.id)
    assert restarted.stand("", (*SYSTEM, 50, 51), "system question and") == []
