"""Chains of segments: addresses, cuts, transcripts, against a model that stores whole histories."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.segments import (
    BrokenChain,
    Segment,
    chain,
    chain_length,
    chain_tokens,
    cut,
    digest,
    make_segment,
    transcript,
)


def segment(parent: str | None = None, start: int = 0, **over: Any) -> Segment:
    fields: dict[str, Any] = {
        "tokens": [1, 2, 3],
        "kind": "prompt",
        "namespace": "n",
        "fingerprint": "f",
        "codec": "float/1",
    }
    return make_segment(parent=parent, start=start, **{**fields, **over})


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": [1, 2, 4]},
        {"tokens": [1, 2]},
        {"namespace": "m"},
        {"fingerprint": "g"},
        {"codec": "float/2"},
        {"kind": "heard"},
        {"messages": ({"role": "user", "content": "hi"},)},
        {"transcript_base": 1},
    ],
)
def test_everything_that_a_segment_means_is_in_its_address(change: dict[str, Any]) -> None:
    assert segment(**change).id != segment().id


def test_an_address_does_not_depend_on_when_or_how_large() -> None:
    assert segment(created=5.0, num_bytes=9).id == segment().id
    assert segment("p", 3).id != segment("p", 2).id != segment("q", 2).id


def test_messages_are_addressed_by_content_not_by_key_order() -> None:
    one = segment(messages=({"role": "user", "content": "hi"},))
    two = segment(messages=({"content": "hi", "role": "user"},))
    assert one.id == two.id


def test_a_segment_survives_msgpack() -> None:
    original = segment(messages=({"role": "user", "content": "hi", "parts": [1, None]},))
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(original), type=Segment)
    assert copy == original
    assert digest(copy) == copy.id
    assert copy.tokens.tolist() == [1, 2, 3]
    assert copy.end == 3


@pytest.mark.parametrize(
    ("parent", "start", "tokens"), [(None, 0, []), (None, 2, [1]), ("p", 0, [1]), ("p", -1, [1])]
)
def test_impossible_segments_are_refused(parent: str | None, start: int, tokens: list[int]) -> None:
    with pytest.raises(ValueError, match=r"segment|start"):
        segment(parent, start, tokens=tokens)


def test_a_missing_link_is_named() -> None:
    child = segment("gone", 3)
    with pytest.raises(BrokenChain) as caught:
        chain(child.id, {child.id: child})
    assert caught.value.segment_id == "gone"


@pytest.mark.parametrize("start", [4, 7])
def test_a_child_may_not_start_beyond_its_parent(start: int) -> None:
    root = segment()
    child = segment(root.id, start)
    with pytest.raises(BrokenChain):
        chain(child.id, {each.id: each for each in (root, child)})


def test_a_child_may_not_start_before_its_parent() -> None:
    root = segment()
    middle = segment(root.id, 3)
    child = segment(middle.id, 3)
    with pytest.raises(BrokenChain):
        chain(child.id, {each.id: each for each in (root, middle, child)})


def test_the_empty_chain() -> None:
    assert chain(None, {}) == ()
    assert chain_length(()) == 0
    assert chain_tokens(()).tolist() == []
    assert transcript(()) == []


runs = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6)


@given(st.data())
def test_chains_resolve_like_whole_histories(data: st.DataObject) -> None:
    """Grow a random tree by cutting a known history somewhere and appending to it."""
    lookup: dict[str, Segment] = {}
    histories: dict[str | None, tuple[list[int], list[dict[str, Any]]]] = {None: ([], [])}
    for number in range(data.draw(st.integers(1, 8))):
        origin = data.draw(st.sampled_from(list(histories)))
        tokens, messages = histories[origin]
        length = data.draw(st.integers(0, len(tokens)))
        pieces = cut(chain(origin, lookup), length)
        base = data.draw(st.integers(0, len(transcript(pieces))))
        new = data.draw(runs)
        said = [{"role": "user", "content": str(number)}]
        made = segment(
            pieces[-1].segment.id if pieces else None,
            length,
            tokens=new,
            transcript_base=base,
            messages=said,
        )
        lookup[made.id] = made
        kept = transcript(pieces)[:base]
        histories[made.id] = (tokens[:length] + new, kept + said)
    for head, (tokens, messages) in histories.items():
        pieces = chain(head, lookup)
        assert chain_tokens(pieces).tolist() == tokens
        assert chain_length(pieces) == len(tokens)
        assert transcript(pieces) == messages
        for length in range(len(tokens) + 2):
            shorter = cut(pieces, length)
            assert chain_tokens(shorter).tolist() == tokens[:length]
            assert all(0 < piece.used <= piece.segment.num_tokens for piece in shorter)


def test_token_bytes_are_little_endian_uint32() -> None:
    assert segment(tokens=np.array([258], np.uint32)).token_bytes == b"\x02\x01\x00\x00"
