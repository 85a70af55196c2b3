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


def test_a_question_is_matched_whole_where_only_a_scrap_of_what_came_before_it_is() -> None:
    root = segment(None, SYSTEM)
    both = segment(root, tuple(range(100, 140)))
    question = segment(root, tuple(range(100, 110)))
    known = forest(root, both, question)
    pieces = known.match("", (*SYSTEM, *range(100, 110)))
    assert [(p.segment.id, p.used) for p in pieces] == [(root.id, 40), (question.id, 10)]
    assert known.match("", (*SYSTEM, *range(100, 112), 7)) == pieces


def test_other_namespaces_and_other_models_are_not_matched() -> None:
    theirs = segment(None, SYSTEM, namespace="theirs")
    old = segment(None, SYSTEM, fingerprint="another model")
    known = forest(theirs, old)
    assert known.match("", SYSTEM) == ()
    assert len(known.match("theirs", SYSTEM)) == 1
    assert len(known.chain(old.id)) == 1, "its transcript is still there"


def test_one_stands_by_text_whatever_the_tokens() -> None:
    root = segment(None, SYSTEM, "system ")
    asked = segment(root, (50, 51), "question ")
    said = segment(asked, (60, 61, 62, 63), "answer ")
    again = segment(said, (70,), "more ")
    theirs = segment(None, SYSTEM, "system ", namespace="theirs")
    known = forest(root, asked, said, again, theirs)
    rendered = "system question answer more and new"
    assert known.stand("", rendered) == [again.id, said.id, asked.id, root.id]
    assert known.stand("", "system question another") == [asked.id, root.id]
    assert known.stand("theirs", rendered) == [theirs.id]
    assert known.stand("", "another system question") == []


def test_a_way_leads_over_a_branch_that_leaves_inside() -> None:
    root = segment(None, SYSTEM, "system prompt ")
    asked = segment(root, (50, 51, 52, 53), "what is it? ")
    branch = segment(asked, (5, 6), "where is it? ", cut=1)
    further = segment(branch, (7,), "here ")
    known = forest(root, asked, branch, further)
    way = known.trace("", "system prompt wwhere is it? here and now")
    assert [(p.segment.id, p.used) for p in way] == [
        (root.id, 40),
        (asked.id, 1),
        (branch.id, 2),
        (further.id, 1),
    ]
    assert known.stand("", "system prompt wwhere is it? ") == [branch.id, root.id]
    assert known.trace("", "system prompt what is it? ")[-1].segment == asked


def test_the_longer_way_is_taken() -> None:
    root = segment(None, SYSTEM, "system ")
    short = segment(root, (50,), "a ")
    long = segment(root, (50, 51), "a b ")
    assert forest(root, short, long).stand("", "system a b c") == [long.id, root.id]


def answer(parent: Segment, text: str, said: str) -> Segment:
    return make_segment(
        parent=parent.id,
        start=parent.end,
        tokens=(60, 61, 62),
        text=text,
        kind="generation",
        namespace="",
        fingerprint="f",
        codec="float/1",
        messages=[{"role": "assistant", "content": said}],
    )


def test_an_answer_is_known_without_its_spaces_and_its_reasoning() -> None:
    root = segment(None, SYSTEM, "ask ")
    said = answer(root, "<think>Hm.</think>\n\nIt is so.\n<end>", "It is so.\n")
    more = segment(said, (70,), "\nmore ")
    known = forest(root, said, more)
    for told in ("It is so.<end>", " It is so. <end>", "It is so.\n<end>"):
        assert known.stand("", f"ask {told}\nmore and new") == [more.id, said.id, root.id]
    for other in ("It is so. Or not.<end>", "It is<end>", "<end>", "It is so."):
        assert known.stand("", f"ask {other}\nmore ") == [root.id]


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
    known.add(child)  # with new bytes: what stands on it has kept its own
    assert chain_length(known.match("", (*SYSTEM, 50, 51, 60, 80))) == 44
    known.lose(grandchild.id)
    known.lose(child.id)
    known.add(child)
    assert chain_length(known.match("", (*SYSTEM, 50, 51, 60, 80))) == 42


def test_whose_bytes_are_all_evicted_is_still_known_by_its_words() -> None:
    root = segment(None, SYSTEM, "system ")
    asked = segment(root, (50, 51), "question ")
    known = forest(root, asked)
    known.lose(root.id)
    assert known.match("", (*SYSTEM, 50, 51)) == ()
    assert known.stand("", "system question more") == [asked.id, root.id]
    assert known.stand("", "system other") == [root.id]
    restarted = Forest("f")
    restarted.add(root, stored=False)
    restarted.add(asked, stored=False)
    assert restarted.stand("", "system question and") == [asked.id, root.id]
    for each in (asked, root):
        restarted.remove(each.id)
    assert restarted.stand("", "system question and") == []
