"""What is heard as text and tokens: certain are only those that every continuation begins with."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from greenroom.runtime.hearsay import beginning, heard_prompt, joined, rendered_prompt
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.text import Remembered, Text

SYSTEM = ChatMessage("system", "You are Bob.")


def told(content: str, name: str | None = None) -> ChatMessage:
    return ChatMessage("user", content, name, heard=True)


@pytest.fixture(scope="module")
def text(default_model_path: Path) -> Text:
    return Text(load_tokenizer(default_model_path))


def test_what_is_heard_in_a_row_and_said_then_is_one_message() -> None:
    messages = [SYSTEM, told("Hi.", "Alice"), told("Rain."), ChatMessage("user", "Well?")]
    assert [(m.role, m.content) for m in joined(messages)] == [
        ("system", "You are Bob."),
        ("user", "Alice: Hi.\n\nRain.\n\nWell?"),
    ]


def test_what_was_said_stays_a_message_of_its_own() -> None:
    asked = [ChatMessage("user", "A"), ChatMessage("user", "B"), told("C")]
    assert [m.content for m in joined(asked)] == ["A", "B", "C"]
    other = [told("A"), ChatMessage("assistant", "B"), told("C"), ChatMessage("system", "D")]
    assert [m.content for m in joined(other)] == ["A", "B", "C", "D"]


words = st.text(
    alphabet=st.one_of(st.sampled_from(" \n.,!ab1é漢🙂"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=24,
).filter(lambda s: "\0" not in s and bool(s.strip()))


@settings(max_examples=80)
@given(heard=st.lists(words, min_size=1, max_size=3), said=words)
def test_what_is_taken_in_begins_every_prompt_that_follows(
    text: Text, heard: list[str], said: str
) -> None:
    """However it is cut, nothing changes: the tokens are those of the text said in one go."""
    messages = [SYSTEM]
    known: list[Remembered] = []
    for content in heard:
        messages.append(told(content))
        prompt = heard_prompt(text, messages, known)
        at = sum(len(r.tokens) for r in known)
        if len(prompt.tokens) <= at or prompt.tokens[:at] != tuple(
            t for r in known for t in r.tokens
        ):
            continue
        new = prompt.tokens[at:]
        (*_, run) = text.slices(prompt, [at, len(prompt.tokens)])
        assert text.decode(new) == run, "a segment's text is that of its tokens"
        known.append(Remembered(run, new, heard=True))
    messages.append(ChatMessage("user", said))
    whole = rendered_prompt(text, messages, [])
    assert rendered_prompt(text, messages, known).tokens == whole.tokens
    assert len(known) > 0


def test_nearly_all_of_it_can_be_taken_in_at_once(text: Text) -> None:
    for content in ("It is raining again.", "Who was that?", "one two three", "- a\n- b\n"):
        messages = [SYSTEM, told(content)]
        sure = heard_prompt(text, messages, []).tokens
        closed = rendered_prompt(text, messages, []).tokens
        asked = rendered_prompt(text, [*messages, ChatMessage("user", "And?")], []).tokens
        assert asked[: len(sure)] == closed[: len(sure)] == sure
        said = text.decode(sure).partition("<|im_start|>user\n")[2]
        assert len(content) - len(said) <= 1


def test_a_long_story_may_be_taken_in_piece_by_piece(text: Text) -> None:
    messages = [SYSTEM, told("漢字 and kana 🙂 " * 30)]
    whole = heard_prompt(text, messages, [])
    for length in range(1, len(whole.tokens)):
        part = beginning(text, whole, length)
        assert part.tokens == whole.tokens[: len(part.tokens)]
        assert length - 8 < len(part.tokens) <= length
        assert "".join(s.text for s in part.spans) == text.decode(part.tokens)


def test_another_tokenization_of_the_end_is_put_right(text: Text) -> None:
    """Somebody has remembered a heard end in tokens that what follows does not allow."""
    messages = [told("It rains"), ChatMessage("user", "a lot")]
    whole = rendered_prompt(text, messages, [])
    rendered = text.decode(whole.tokens)
    stop = rendered.index("It rains") + len("It rai")
    odd = Remembered(rendered[:stop], text.encode(rendered[:stop]), heard=True)
    assert whole.tokens[: len(odd.tokens)] != odd.tokens
    assert rendered_prompt(text, messages, [odd]).tokens == whole.tokens
    kept = rendered_prompt(text, messages, [Remembered(odd.text, odd.tokens)])
    assert kept.tokens[: len(odd.tokens)] == odd.tokens, "what was said keeps its own ids"
