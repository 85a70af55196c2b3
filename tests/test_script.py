"""Who speaks next."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.script import Situation, after, named_in, next_speakers, upcoming

CIRCLE = ("ann", "bob", "cid", "dot")


def test_around_the_circle() -> None:
    assert after(None, CIRCLE, CIRCLE) == "ann"
    assert after("bob", CIRCLE, ("ann", "dot")) == "dot"
    assert after("dot", CIRCLE, ("bob",)) == "bob"
    assert after("gone", CIRCLE, CIRCLE) == "ann"


@pytest.mark.parametrize(
    ("order", "speaking", "expected"),
    [
        ("round_robin", (), "cid"),
        ("round_robin", ("cid",), "dot"),
        ("turn_by_turn", ("ann",), "bob"),
        ("broadcast", (), None),
        ("free", (), None),
        ("moderated", (), None),
    ],
)
def test_who_is_next_is_known_in_some_orders(
    order: str, speaking: tuple[str, ...], expected: str | None
) -> None:
    now = msgspec.convert(
        {
            "order": order,
            "circle": CIRCLE,
            "cast": CIRCLE,
            "spoken": ("ann", "bob"),
            "speaking": speaking,
        },
        Situation,
    )
    assert upcoming(now) == expected


def test_whoever_is_mentioned_speaks_next_in_free_order() -> None:
    now = Situation(
        order="free",
        circle=CIRCLE,
        cast=CIRCLE,
        spoken=("ann",),
        num_in_phase=1,
        at_once=1,
        mentioned="What does Dot say, and cid?",
    )
    assert next_speakers(now) == ("dot",)
    assert named_in("Dots and a cid-like thing, bob", CIRCLE) == ("cid", "bob")


@given(
    num=st.integers(1, 4),
    at_once=st.integers(1, 3),
    ends=st.lists(st.integers(0, 3), min_size=5, max_size=40),
    mentions=st.lists(st.sampled_from(CIRCLE), min_size=40, max_size=40),
)
def test_free_order_is_fair_whoever_is_mentioned_and_whoever_takes_long(
    num: int, at_once: int, ends: list[int], mentions: list[str]
) -> None:
    cast = CIRCLE[:num]
    cued: list[str] = []
    spoken: list[str] = []
    speaking: list[str] = []
    for end, mentioned in zip(ends, mentions, strict=False):
        now = Situation(
            order="free",
            circle=CIRCLE,
            cast=cast,
            spoken=tuple(spoken),
            num_in_phase=len(spoken),
            speaking=tuple(speaking),
            at_once=at_once,
            mentioned=mentioned,
        )
        new = next_speakers(now)
        assert len({*speaking, *new}) == len(speaking) + len(new) <= at_once
        cued += new
        speaking += new
        assert speaking, "somebody always speaks"
        turns = Counter(dict.fromkeys(cast, 0) | Counter(cued))
        assert max(turns.values()) - min(turns.values()) <= 2
        spoken.append(speaking.pop(end % len(speaking)))
