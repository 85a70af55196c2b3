"""Ballots: what answers choose, and what they add up to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.ballot import Ballot, announcement, ask_for, read_ranking, tally
from greenroom.runtime.scenario import Method, Vote

COLOURS = ("red", "dark red", "blue")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Blue", ("blue",)),
        ("I would say: **Dark  Red**, because of the sun.", ("dark red",)),
        ("red, blue, dark red", ("red", "blue", "dark red")),
        ("1. blue\n2. red", ("blue", "red")),
        ("blue blue red", ("blue", "red")),
        ("3", ("blue",)),
        ("2, 1", ("dark red", "red")),
        ("4", ()),
        ("bluebell or redwood", ()),
        ("", ()),
    ],
)
def test_what_an_answer_chooses(text: str, expected: tuple[str, ...]) -> None:
    assert read_ranking(text, COLOURS, "ranked") == expected
    assert read_ranking(text, COLOURS, "majority") == expected[:1]


def test_numbers_are_no_places_where_options_have_digits() -> None:
    assert read_ranking("2", ("10", "2"), "majority") == ("2",)
    assert read_ranking("1", ("10", "2"), "majority") == ()


def test_a_majority_and_a_tie() -> None:
    vote = Vote(question="Which?", options=COLOURS)
    ballots = [Ballot(n, "", (o,)) for n, o in (("a", "blue"), ("b", "red"), ("c", "blue"))]
    result = tally(vote, ballots)
    assert (result.winner, result.decided, result.tied) == ("blue", True, ())
    result = tally(vote, [*ballots, Ballot("d", "red!", ("red",)), Ballot("e", None, ())])
    assert (result.winner, result.decided, result.tied) == ("red", False, ("red", "blue"))
    assert (result.num_valid, result.num_invalid, result.num_absent) == (4, 0, 1)
    assert "red wins a tie of red and blue" in announcement(result)
    nothing = tally(vote, [Ballot("a", "green", ())])
    assert nothing.winner is None
    assert "no valid ballot" in announcement(nothing)


def test_a_borda_count() -> None:
    vote = Vote(question="Which?", options=COLOURS, method="ranked")
    ballots = [
        Ballot("a", "", ("red", "blue", "dark red")),
        Ballot("b", "", ("dark red", "blue")),
        Ballot("c", "", ("blue",)),
    ]
    assert tally(vote, ballots).points == {"red": 2, "dark red": 2, "blue": 4}
    assert tally(vote, ballots).winner == "blue"
    assert "best first" in ask_for(vote)


@given(
    method=st.sampled_from(["majority", "ranked"]),
    texts=st.lists(st.none() | st.text(max_size=20) | st.sampled_from(COLOURS), max_size=6),
)
def test_all_ballots_are_counted_once(method: Method, texts: list[str | None]) -> None:
    vote = Vote(question="Which?", options=COLOURS, method=method)
    ballots = [
        Ballot(str(n), t, read_ranking(t or "", COLOURS, method)) for n, t in enumerate(texts)
    ]
    result = tally(vote, ballots)
    assert result.num_valid + result.num_invalid + result.num_absent == len(texts)
    assert (result.winner is None) == (result.num_valid == 0)
    assert tally(vote, ballots[::-1]) == result
