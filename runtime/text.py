"""Between text and token ids: rendering, tokenizing, detokenizing. Safe off the MLX thread."""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
from mlx_lm.generate import TextStateMachine
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.parts import read_marks
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.template import num_characters
from greenroom.runtime.template_probe import probe
from greenroom.runtime.vocabulary import Vocabulary


class Remembered(msgspec.Struct, frozen=True):
    """A run of remembered tokens and the exact text that they stand for in a rendered prompt.

    One that was ``heard`` ends within a message.
    """

    text: str
    tokens: tuple[int, ...]
    heard: bool = False


class Text:
    """One model's chat template and tokenizer."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer: Any = tokenizer
        self.template, self.report = probe(tokenizer)
        self.marks = read_marks(tokenizer)
        self.vocabulary = Vocabulary(tokenizer)
        self.stop_tokens: tuple[int, ...] = tuple(sorted(tokenizer.eos_token_ids))
        self._specials = tuple(str(t) for t in self._tokenizer.get_added_vocab())
        self._longest = max((len(t) for t in self._tokenizer.get_vocab()), default=1)

    def render(
        self, messages: Sequence[ChatMessage], frame: Frame = PLAIN, *, generate: bool = True
    ) -> str:
        """The prompt for ``messages``; see ``Template.render``."""
        return self.template.render(messages, frame, generate=generate)

    def check_size(
        self, messages: Sequence[ChatMessage], window: int, *, param: str = "messages"
    ) -> None:
        """Refuse, without tokenizing them, messages that cannot possibly fit ``window`` tokens.

        Megabytes would take seconds to render and tokenize. Raises InvalidRequest (``param``).
        """
        # A message is one token at least, and normalizing makes no text shorter than a quarter.
        fewest = sum(max(1, num_characters(m) // (4 * self._longest)) for m in messages)
        if fewest > window:
            raise InvalidRequest(
                f"the {param} have at least {fewest} tokens, and this model's context window "
                f"holds {window}, the answer included: shorten them",
                param=param,
                code="context_length_exceeded",
            )

    def bare(self, prompt: str | Sequence[int]) -> "Prompt":
        """A prompt without a template: text, which gets the tokenizer's special tokens, or ids.

        Raises InvalidRequest (``prompt``) for ids that are no tokens of this model.
        """
        if isinstance(prompt, str):
            tokens = tuple(self._tokenizer.encode(prompt, verbose=False))
        else:
            tokens = tuple(prompt)
        if not tokens or max(tokens) >= len(self._tokenizer):
            raise InvalidRequest(
                f"prompt must hold token ids below {len(self._tokenizer)}",
                param="prompt",
                code="invalid_value",
            )
        return Prompt(tokens, 0, (Remembered(self.decode(tokens), tokens),))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of rendered text; special tokens are recognised, none is added."""
        return (
            tuple(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))
            if text
            else ()
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, special tokens included."""
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def system_end(
        self, messages: Sequence[ChatMessage], rendered: str, frame: Frame = PLAIN
    ) -> int:
        """How many characters of ``rendered`` come before anything that a user said.

        The cut is made before a special token, since the tokenizer never merges across one. Where
        that leaves out some of the system prompt (some templates put it in the first user's turn)
        it is made after the last token that does not depend on what the user said; 0 if nowhere.
        """
        system = [m for m in messages[:1] if m.role == "system"]
        try:
            probes = [self.render([*system, ChatMessage("user", c)], frame) for c in ("a", "b")]
        except InvalidRequest:
            return 0
        shared = _common(rendered, *probes)
        special = max((rendered.rfind(s, 0, shared) for s in self._specials), default=0)
        special = max(special, 0)
        between = rendered[special:shared]
        if not any(m.content.strip() and m.content.strip() in between for m in system):
            return special
        ids = [self.encode(text[special:]) for text in (rendered, *probes)]
        for num_certain in range(_common(*ids), 0, -1):
            certain = self.decode(ids[0][:num_certain])
            if between.startswith(certain) and self.encode(certain) == ids[0][:num_certain]:
                return special + len(certain)
        return special

    def tokenize(self, rendered: str, chain: Sequence[Remembered], system_end: int) -> "Prompt":
        """Token ids of ``rendered``, with the remembered ids for every part that is remembered.

        An answer may tokenize differently from how it was sampled: the sampled ids are kept, and
        only what follows the last piece whose text still stands is tokenized.
        """
        spans: list[Remembered] = []
        at = 0
        for piece in chain:
            text = self._standing(rendered, at, piece)
            if text is None:
                break
            spans.append(piece if text == piece.text else msgspec.structs.replace(piece, text=text))
            at += len(text)
        num_known = len(spans)
        if at < system_end:
            spans.append(self._span(rendered[at:system_end]))
            num_system = sum(len(s.tokens) for s in spans)
        else:
            num_system = 0
        if rendered[max(at, system_end) :]:
            spans.append(self._span(rendered[max(at, system_end) :]))
        tokens = tuple(t for s in spans for t in s.tokens)
        return Prompt(tokens, num_system, tuple(spans), num_known)

    def _standing(self, rendered: str, at: int, piece: Remembered) -> str | None:
        """The text that a piece stands for at that place; None if it does not stand there.

        An answer may have begun with a space that nobody saw, and that some templates print; and
        next to its marks for thoughts and calls it may have other white space than the template.
        """
        if rendered.startswith(piece.text, at):
            return piece.text
        spaced = " " + piece.text
        if rendered.startswith(spaced, at) and self.decode(piece.tokens[:1]).startswith(" "):
            return spaced
        pattern = self.marks.loosely(piece.text)
        found = None if pattern is None else pattern.match(rendered, at)
        return None if found is None else found.group()

    def _span(self, text: str) -> Remembered:
        return Remembered(text, self.encode(text))

    def slices(self, prompt: "Prompt", cuts: Sequence[int]) -> tuple[str, ...]:
        """The rendered text between each two neighbouring token positions in ``cuts``."""
        whole = "".join(s.text for s in prompt.spans)
        offsets = [self._offset(prompt, c) for c in cuts]
        return tuple(whole[a:b] for a, b in itertools.pairwise(offsets))

    def _offset(self, prompt: "Prompt", position: int) -> int:
        characters = 0
        for span in prompt.spans:
            if position < len(span.tokens):
                return characters + len(self.decode(span.tokens[:position]))
            characters += len(span.text)
            position -= len(span.tokens)
        return characters

    def kept(self, tokens: Sequence[int], visible: str) -> tuple[int, str]:
        """How many of the sampled ``tokens`` lie within the ``visible`` answer, and their text.

        An end token is no text, and counts as within when everything before it is.
        """
        ended = bool(tokens) and tokens[-1] in self.stop_tokens
        said = tokens[:-1] if ended else tokens
        keep = len(said)
        seen = self._seen(said, visible)
        if seen is None:
            keep = bisect.bisect_left(
                range(len(said)),
                True,
                # Half a character at the end is not visible, though what follows it may be.
                key=lambda k: self._seen(said[:k], visible, ignore_half=True) is None,
            )
            while keep and (seen := self._seen(said[:keep], visible)) is None:
                keep -= 1
        if ended and keep == len(said) and seen == visible:
            return keep + 1, seen + self.decode(tokens[-1:])
        return (keep, seen) if keep and seen else (0, "")

    def _seen(
        self, tokens: Sequence[int], visible: str, *, ignore_half: bool = False
    ) -> str | None:
        """The text of ``tokens`` as the answer ``visible`` begins with it; None if it does not.

        Streaming detokenizers drop the space that an answer may begin with.
        """
        text = self.decode(tokens)
        if ignore_half:
            text = text.rstrip("\ufffd")
        forms = (text, text.removeprefix(" "))
        return next((form for form in forms if visible.startswith(form)), None)

    def reader(self, stop: Sequence[str]) -> "Reader":
        """A reader for one answer."""
        return Reader(self._tokenizer.detokenizer, frozenset(self.stop_tokens), stop)


class Prompt(msgspec.Struct, frozen=True):
    """A tokenized prompt, and the ``spans`` of text that were tokenized each on its own.

    ``system_end`` tokens come before anything a user said; 0 if they are remembered or unknown.
    The first ``num_known`` spans are remembered ones.
    """

    tokens: tuple[int, ...]
    system_end: int
    spans: tuple[Remembered, ...]
    num_known: int = 0


class Reader:
    """Turns one answer's token ids into text: never half a character, never past a stop string.

    Text that may be the beginning of a stop string is held back until it is known not to be.
    """

    def __init__(self, detokenizer: Any, end_tokens: frozenset[int], stop: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._end_tokens = end_tokens
        self._state = TextStateMachine({"normal": [(s, None) for s in stop]}).make_state()
        self.text = ""
        self.stopped = False

    def read(self, tokens: Sequence[int]) -> str:
        """The new text that ``tokens`` bring; sets ``stopped`` where a stop string has ended it."""
        for token in tokens:
            if token not in self._end_tokens:
                self._detokenizer.add_token(token)
        return self._match(self._detokenizer.last_segment)

    def end(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return ""
        self._detokenizer.finalize()
        new = self._match(self._detokenizer.last_segment)
        if not self.stopped:
            _, held, _ = TextStateMachine.flush(self._state)
            new += str(held)
            self.text += str(held)
        return new

    def _match(self, segment: str) -> str:
        if self.stopped or not segment:
            return ""
        self._state, new, name = TextStateMachine.step(self._state, segment)
        self.stopped = name is None
        self.text += new
        return str(new)


def _common(first: Sequence[object], *others: Sequence[object]) -> int:
    """Length of the longest common prefix."""
    length = min(len(first), *(len(o) for o in others))
    for i in range(length):
        if any(o[i] != first[i] for o in others):
            return i
    return length
