"""Text and tokens, with the default model's real tokenizer and template."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.text import Remembered, Text

TERSE = ChatMessage("system", "You are terse.")
ASK = ChatMessage("user", "What is the capital of France?")


@pytest.fixture(scope="module")
def text(default_model_path: Path) -> Text:
    return Text(load_tokenizer(default_model_path))


def test_a_prompt_is_cut_before_the_first_users_turn(text: Text) -> None:
    rendered = text.render([TERSE, ASK])
    end = text.system_end([TERSE, ASK], rendered)
    assert rendered[:end].endswith("You are terse.<|im_end|>\n")
    assert rendered[end:].startswith("<|im_start|>user\n")
    prompt = text.tokenize(rendered, [], end)
    assert text.decode(prompt.tokens[: prompt.system_end]) == rendered[:end]
    assert prompt.tokens == text.encode(rendered), "a cut at a special token changes no token"


def test_the_templates_own_system_prompt_is_shared_too(text: Text) -> None:
    rendered = text.render([ASK])
    assert rendered[: text.system_end([ASK], rendered)].endswith("Hugging Face<|im_end|>\n")


# mlx-lm's detokenizer shows U+0000 as another letter; no model says it.
words = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
)


@settings(max_examples=60)
@given(question=words, answer=words, follow_up=words, ended=st.booleans())
def test_what_is_remembered_keeps_its_own_ids_and_the_rest_is_tokenized(
    text: Text, question: str, answer: str, follow_up: str, ended: bool
) -> None:
    asked = [TERSE, ChatMessage("user", question)]
    first = text.render(asked)
    # Ids that no tokenizer would choose for this text: one per character.
    odd = tuple(t for c in answer for t in text.encode(c))
    if text.decode(odd) != answer:
        return  # an unknown character: nothing to reuse
    end = (text.stop_tokens[0],) if ended else ()
    chain = [
        Remembered(first, text.encode(first)),
        Remembered(answer + text.decode(end), odd + end),
    ]
    told = [*asked, ChatMessage("assistant", answer), ChatMessage("user", follow_up)]
    prompt = text.tokenize(text.render(told), chain, 0)
    remembered = chain[0].tokens + chain[1].tokens
    assert prompt.tokens[: len(remembered)] == remembered
    assert text.decode(prompt.tokens) == text.decode(text.encode(text.render(told)))


def test_an_edited_history_keeps_what_comes_before_the_edit(text: Text) -> None:
    first = text.render([TERSE, ASK])
    chain = [Remembered(first, text.encode(first)), Remembered("Paris.<|im_end|>", (1, 2, 3))]
    told = [TERSE, ASK, ChatMessage("assistant", "London."), ChatMessage("user", "Sure?")]
    prompt = text.tokenize(text.render(told), chain, 0)
    assert prompt.tokens[: len(chain[0].tokens)] == chain[0].tokens
    assert "London." in text.decode(prompt.tokens)


def test_slices_are_the_text_between_token_positions(text: Text) -> None:
    rendered = text.render([TERSE, ASK])
    end = text.system_end([TERSE, ASK], rendered)
    prompt = text.tokenize(rendered, [], end)
    parts = text.slices(prompt, [0, 4, prompt.system_end, len(prompt.tokens)])
    assert "".join(parts) == rendered
    assert parts[0] == text.decode(prompt.tokens[:4])
    assert parts[0] + parts[1] == rendered[:end]


def read(text: Text, answer: str, stop: list[str]) -> tuple[str, list[str], bool]:
    reader = text.reader(stop)
    pieces = [reader.read([token]) for token in text.encode(answer)]
    pieces.append(reader.end())
    return reader.text, pieces, reader.stopped


@settings(max_examples=100)
@given(answer=words.filter(lambda a: not a.startswith(" ")))
def test_streamed_text_is_the_text_and_never_half_a_character(text: Text, answer: str) -> None:
    whole, pieces, _ = read(text, answer, [])
    assert whole == "".join(pieces) == text.decode(text.encode(answer))
    if "\ufffd" not in whole:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=100)
@given(
    answer=st.text(alphabet="ab c", max_size=30).filter(lambda a: not a.startswith(" ")),
    stop=st.lists(st.text(alphabet="ab c", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_nothing_of_a_stop_string_is_seen(text: Text, answer: str, stop: list[str]) -> None:
    whole, pieces, stopped = read(text, answer, stop)
    ends = [answer.index(s) + len(s) for s in stop if s in answer]
    assert stopped == bool(ends)
    assert "".join(pieces) == whole
    if not ends:
        assert whole == answer
        return
    first = min(ends)
    matches = [s for s in stop if answer[:first].endswith(s)]
    assert whole in {answer[: first - len(s)] for s in matches}


def test_only_tokens_that_lie_within_the_visible_text_are_kept(text: Text) -> None:
    tokens = [*text.encode("The capital of France is Paris."), *text.stop_tokens[:1]]
    whole = "The capital of France is Paris."
    assert text.kept(tokens, whole) == (len(tokens), whole + "<|im_end|>")
    assert text.kept(tokens, "The capital of France is Pa") == (5, "The capital of France is")
    assert text.kept(tokens, "") == (0, "")


@pytest.mark.parametrize(
    "answer", [" Paris is it.", "  two spaces", "a\0b and more", "na\u00efve \U0001f642"]
)
@pytest.mark.parametrize("ended", [True, False])
def test_a_whole_answer_is_kept_however_it_begins(text: Text, answer: str, ended: bool) -> None:
    said = text.encode(answer)
    tokens = [*said, *text.stop_tokens[: int(ended)]]
    visible, _, _ = read(text, answer, [])
    keep, kept = text.kept(tokens, visible)
    if "\0" in answer:  # shown as another letter: what comes before it is kept
        assert (keep, kept) == (1, "a")
        return
    assert keep == len(tokens)
    assert kept == visible + text.decode(tokens[len(said) :]), "as a history will render it"


@settings(max_examples=60)
@given(answer=words, at=st.integers(0, 40))
def test_no_more_is_kept_than_was_seen(text: Text, answer: str, at: int) -> None:
    tokens = text.encode(answer)
    visible = answer[:at]
    keep, kept = text.kept(tokens, visible)
    assert visible.startswith(kept)
    assert text.decode(tokens[:keep]) in {kept, " " + kept}
    longer = [
        k for k in range(keep + 1, len(tokens) + 1) if visible.startswith(text.decode(tokens[:k]))
    ]
    assert not longer


def test_messages_that_cannot_fit_are_refused_without_being_tokenized(text: Text) -> None:
    text.check_size([ChatMessage("user", "word " * 8000)], 8192)
    with pytest.raises(InvalidRequest) as refused:
        text.check_size([ChatMessage("user", "word " * 2_000_000)], 8192)
    assert (refused.value.param, refused.value.code) == ("messages", "context_length_exceeded")
    with pytest.raises(InvalidRequest):
        text.check_size([ASK] * 8193, 8192)
