"""What an agent has heard and not yet answered: a turn that is still open, as text and as tokens.

Whatever is heard in a row, and what is said after it, is one message to the chat template: some
templates refuse two in a row. While more may follow, only the tokens are certain that every
continuation shares.
"""

import itertools
from collections.abc import Sequence

import msgspec

from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.placement import SEPARATOR
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.text import Prompt, Remembered, Text


def joined(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same with each message that was heard put in front of the next, if that has its role.

    Who spoke is told in the text, since hardly any template renders a name.
    """
    merged: list[ChatMessage] = []
    for message in messages:
        content = message.content
        if message.heard and message.name:
            content = f"{message.name}: {content}"
        before = merged[-1] if merged else None
        if before is not None and before.heard and before.role == message.role:
            content = before.content + SEPARATOR + content
            merged.pop()
        name = message.name if message.role == "tool" else None
        merged.append(msgspec.structs.replace(message, content=content, name=name))
    return merged


def rendered_prompt(
    text: Text,
    messages: Sequence[ChatMessage],
    known: Sequence[Remembered],
    frame: Frame = PLAIN,
) -> Prompt:
    """The prompt of ``messages``, of which the ``known`` runs keep their ids.

    Raises InvalidRequest where the template refuses.
    """
    whole = joined(messages)
    rendered = text.render(whole, frame)
    # Where the system prompt ends is of use only while none of it is remembered.
    is_known = bool(known) and rendered.startswith(known[0].text)
    system_end = 0 if is_known else text.system_end(whole, rendered, frame)
    return _settled(text, text.tokenize(rendered, known, system_end), known)


def heard_prompt(
    text: Text,
    messages: Sequence[ChatMessage],
    known: Sequence[Remembered],
    frame: Frame = PLAIN,
) -> Prompt:
    """The beginning of every prompt that continues ``messages``, the last of which was heard.

    It is found by rendering and tokenizing two of them: nothing follows, or something does. Raises
    InvalidRequest where the template refuses.
    """
    more = ChatMessage(messages[-1].role, "a")
    closed, open_ = (rendered_prompt(text, m, known, frame) for m in (messages, [*messages, more]))
    return beginning(text, open_, _shared(closed.tokens, open_.tokens))


def _settled(text: Text, prompt: Prompt, known: Sequence[Remembered]) -> Prompt:
    """The prompt with the ids that the tokenizer gives what was heard and what follows together.

    What was heard ends where its tokens hardly depend on what follows; this makes sure of it.
    """
    reused = prompt.num_known
    if not 0 < reused < len(prompt.spans) or not known[reused - 1].heard:
        return prompt
    last, *rest = prompt.spans[reused - 1 :]
    whole = last.text + "".join(span.text for span in rest)
    tokens = text.encode(whole)
    if tokens[: len(last.tokens)] == last.tokens:
        return prompt
    spans = (*prompt.spans[: reused - 1], Remembered(whole, tokens))
    tokens = tuple(t for span in spans for t in span.tokens)
    return Prompt(tokens, prompt.system_end, spans, reused - 1)


def beginning(text: Text, prompt: Prompt, length: int) -> Prompt:
    """The first ``length`` tokens of a prompt, or a few less: never half a character."""
    spans: list[Remembered] = []
    left = length
    for span in prompt.spans:
        if left <= 0:
            break
        spans.append(span if left >= len(span.tokens) else _cut(text, span, left))
        left -= len(span.tokens)
    spans = [span for span in spans if span.tokens]
    tokens = tuple(t for span in spans for t in span.tokens)
    return Prompt(tokens, min(prompt.system_end, len(tokens)), tuple(spans))


def _cut(text: Text, span: Remembered, num_tokens: int) -> Remembered:
    while num_tokens:
        kept = text.decode(span.tokens[:num_tokens])
        if kept and span.text.startswith(kept):
            return Remembered(kept, span.tokens[:num_tokens], span.heard)
        num_tokens -= 1
    return Remembered("", ())


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in pairs)
