"""The arithmetic of a turn: limits, defaults, and the segments that remember it."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from greenroom.actors.turn import (
    Answer,
    Draft,
    answered,
    clip_max_tokens,
    make_segments,
    remembered,
    whole_history,
)
from greenroom.runtime.codec import Payload
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.job import Encoded
from greenroom.runtime.records import ChatMessage, TurnRequest
from greenroom.runtime.segments import Piece, Segment, chain, chain_tokens, transcript
from greenroom.runtime.text import Prompt, Remembered

SYSTEM = ChatMessage("system", "S")
ASK = ChatMessage("user", "A")
AGAIN = ChatMessage("user", "B")


def encoded(start: int, stop: int) -> Encoded:
    return Encoded(start, stop, Payload("float/1", stop - start, {"x": np.zeros(4, np.uint8)}))


def draft(
    messages: Sequence[ChatMessage], num_tokens: int, system_end: int, matched: Sequence[Piece] = ()
) -> Draft:
    tokens = tuple(range(100, 100 + num_tokens))
    return Draft(
        namespace="",
        fingerprint="f",
        codec="float/1",
        matched=tuple(matched),
        messages=tuple(messages),
        prompt=Prompt(tokens, system_end, (Remembered("x" * num_tokens, tokens),)),
    )


def first_turn() -> tuple[Segment, ...]:
    """A system prompt of 3 tokens, a question of 5, an answer of 4."""
    return make_segments(
        draft([SYSTEM, ASK], 8, 3),
        [encoded(0, 3), encoded(3, 8), encoded(8, 12)],
        Answer("yes", (7, 8, 9, 2), "yes<end>"),
        ["sys", "ask"],
        1.0,
    )


def pieces(segments: Sequence[Segment]) -> tuple[Piece, ...]:
    return chain(segments[-1].id, {s.id: s for s in segments})


def test_a_first_turn_is_three_segments_with_their_messages() -> None:
    system, question, answer = first_turn()
    assert [s.kind for s in (system, question, answer)] == ["system", "prompt", "generation"]
    assert (system.parent, question.parent, answer.parent) == (None, system.id, question.id)
    assert [s.text for s in (system, question, answer)] == ["sys", "ask", "yes<end>"]
    whole = pieces([system, question, answer])
    assert transcript(whole) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "yes"},
    ]
    assert chain_tokens(whole).tolist() == [*range(100, 108), 7, 8, 9, 2]


def test_a_say_continues_what_is_remembered() -> None:
    whole = pieces(first_turn())
    request = TurnRequest(messages=(AGAIN,), mode="say")
    assert whole_history(request, whole, "ignored: it is remembered") == [
        SYSTEM,
        ASK,
        ChatMessage("assistant", "yes"),
        AGAIN,
    ]


def test_the_system_prompt_of_an_agent_opens_its_first_turn() -> None:
    for mode in ("say", "chat"):
        request = TurnRequest(messages=(ASK,), mode=mode)
        assert whole_history(request, (), "S") == [SYSTEM, ASK]
        assert whole_history(request, (), None) == [ASK]
    own = TurnRequest(messages=(ChatMessage("system", "T"), ASK), mode="chat")
    assert whole_history(own, (), "S")[0].content == "T"


def test_a_second_turn_adds_only_what_is_new() -> None:
    first = first_turn()
    told = [SYSTEM, ASK, ChatMessage("assistant", "yes"), AGAIN]
    second = make_segments(
        draft(told, 15, 0, pieces(first)),
        [encoded(12, 15), encoded(15, 17)],
        Answer("no", (5, 2), "no<end>"),
        ["again"],
        2.0,
    )
    assert [s.kind for s in second] == ["prompt", "generation"]
    assert second[0].parent == first[-1].id
    assert transcript(pieces([*first, *second]))[-2:] == [
        {"role": "user", "content": "B"},
        {"role": "assistant", "content": "no"},
    ]


def test_an_edited_history_branches_inside_a_segment_and_keeps_both() -> None:
    first = first_turn()
    cut = (*pieces(first)[:2], Piece(first[2], 1))  # the first token of the answer still stands
    told = [SYSTEM, ASK, ChatMessage("assistant", "yep"), AGAIN]
    second = make_segments(
        draft(told, 16, 0, cut),
        [encoded(9, 16), encoded(16, 18)],
        Answer("no", (5, 2), "no<end>"),
        ["ep again"],
        2.0,
    )
    known = {s.id: s for s in (*first, *second)}
    branch = chain(second[-1].id, known)
    assert [p.used for p in branch] == [3, 5, 1, 7, 2]
    assert [m["content"] for m in transcript(branch)] == ["S", "A", "yep", "B", "no"]
    assert [m["content"] for m in transcript(chain(first[-1].id, known))] == ["S", "A", "yes"]


def test_pieces_are_remembered_as_text_past_cuts_that_the_text_has_too() -> None:
    whole = pieces(first_turn())
    assert [r.text for r in remembered(whole, "f", str)] == ["sys", "ask", "yes<end>"]
    assert remembered(whole, "another model", str) == []
    cut = (whole[0], Piece(whole[1].segment, 2), whole[2])
    found = remembered(cut, "f", lambda tokens: "ask"[: len(tokens)])
    assert [(r.text, len(r.tokens)) for r in found] == [("sys", 3), ("as", 2), ("yes<end>", 4)]
    half_a_character = remembered(cut, "f", lambda tokens: "a\ufffd")
    assert [r.text for r in half_a_character] == ["sys"]


@pytest.mark.parametrize(("asked", "given"), [(None, 92), (5, 5), (1000, 92)])
def test_answers_end_where_the_context_window_ends(asked: int | None, given: int) -> None:
    request = TurnRequest(messages=(ASK,), max_tokens=asked)
    assert clip_max_tokens(request, draft([ASK], 8, 0).prompt, 100) == given


def test_a_prompt_that_leaves_no_room_is_refused_with_numbers() -> None:
    request = TurnRequest(messages=(ASK,), max_tokens=1)
    with pytest.raises(InvalidRequest, match=r"8 tokens.*holds 8") as refused:
        clip_max_tokens(request, draft([ASK], 8, 0).prompt, 8)
    assert (refused.value.param, refused.value.code) == ("messages", "context_length_exceeded")


def test_an_answer_of_which_no_token_is_kept_is_still_in_the_transcript() -> None:
    """The only token of a one-token answer has no K and V; what it said was said."""
    segments = make_segments(
        draft([SYSTEM, ASK], 8, 3),
        [encoded(0, 3), encoded(3, 8)],
        Answer("Yes", (), ""),
        ["sys", "ask"],
        1.0,
    )
    assert [s.kind for s in segments] == ["system", "prompt"]
    whole = pieces(segments)
    assert [m["content"] for m in transcript(whole)] == ["S", "A", "Yes"]
    assert whole_history(TurnRequest(messages=(AGAIN,), mode="say"), whole, None)[-1] == AGAIN


def test_what_is_known_by_its_key_is_left_out() -> None:
    def told(text: str, key: str | None) -> ChatMessage:
        return ChatMessage("user", text, heard=True, key=key)

    segments = make_segments(
        draft([SYSTEM, told("one", "1"), told("two", "2")], 8, 3),
        [encoded(0, 3), encoded(3, 8), encoded(8, 12)],
        Answer("yes", (7, 8, 9, 2), "yes<end>", "turn 1"),
        ["sys", "ask"],
        1.0,
    )
    chain_ = pieces(segments)
    assert transcript(chain_)[-1] == {"role": "assistant", "content": "yes", "key": "turn 1"}
    request = TurnRequest(
        messages=(told("two", "2"), told("three", "3"), told("four", "4"), ASK),
        mode="say",
        agent="a",
        key="turn 2",
    )
    heard = (told("four", "4"), told("", None))
    history = whole_history(request, chain_, None, heard)
    # In the order of whoever asks; what has no key is always new.
    assert [m.content for m in history] == ["S", "one", "two", "yes", "", "three", "four", "A"]
    assert answered(request, chain_) is None
    assert answered(msgspec.structs.replace(request, key="turn 1"), chain_) == "yes"
