"""What of a history that is sent back is what was said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.echo import restored
from greenroom.runtime.records import ChatMessage, ToolCall

SYSTEM = ChatMessage("system", "S")
ASK = ChatMessage("user", "A?", key="k1")
CALL = ToolCall("c1", "look", '{"at":  "Oslo", "n": 1}')
SAID = ChatMessage("assistant", "\nSo it is. ", key="k1", reasoning="Let me see.\n")
CALLED = ChatMessage("assistant", "", tool_calls=(CALL,))
MORE = ChatMessage("user", "B?")


def test_what_is_the_same_but_for_spaces_and_reasoning_is_put_back() -> None:
    told = [SYSTEM, ChatMessage("user", "A?"), ChatMessage("assistant", "So it is."), MORE]
    assert restored(told, [SYSTEM, ASK, SAID]) == [SYSTEM, ASK, SAID, MORE]


def test_a_call_is_the_same_however_its_arguments_are_written() -> None:
    again = ToolCall("c1", "look", '{"n":1,"at":"Oslo"}')
    told = [ASK, ChatMessage("assistant", "", tool_calls=(again,)), MORE]
    assert restored(told, [ASK, CALLED]) == [ASK, CALLED, MORE]


@pytest.mark.parametrize(
    "other",
    [
        ChatMessage("assistant", "So it is not."),
        ChatMessage("assistant", "So it is.", reasoning="I guess."),
        ChatMessage("assistant", "So it is.", tool_calls=(CALL,)),
        ChatMessage("user", "So it is."),
    ],
)
def test_from_what_was_not_said_on_it_is_another_history(other: ChatMessage) -> None:
    told = [ASK, other, MORE, ChatMessage("assistant", "So it is.")]
    assert restored(told, [ASK, SAID, MORE, SAID]) == told


def test_what_others_said_is_taken_at_its_word() -> None:
    told = [ChatMessage("user", "A? "), ChatMessage("assistant", "So it is.")]
    assert restored(told, [ASK, SAID]) == told


messages = st.builds(
    ChatMessage,
    role=st.sampled_from(["user", "assistant"]),
    content=st.sampled_from(["a", " a", "b\n", ""]),
    reasoning=st.sampled_from([None, "r"]),
)


@given(st.lists(messages, max_size=6), st.lists(messages, max_size=6))
def test_nothing_is_added_or_taken_away(
    told: list[ChatMessage], remembered: list[ChatMessage]
) -> None:
    found = restored(told, remembered)
    assert [(m.role, m.content.strip()) for m in found] == [
        (m.role, m.content.strip()) for m in told
    ]
    assert restored(told, told) == told
