"""Histories that outgrow the context window: what of them to leave out, and where that was. Pure.

What is left out ends before something that a user said, so that no answer is without its question
and no tool's answer without its call. In its place stands a note, whose key says how many of a
client's messages came before what is kept: clients send back all of them every time.
"""

from collections.abc import Collection, Sequence

import msgspec

from greenroom.runtime.echo import says_the_same
from greenroom.runtime.records import ChatMessage

WARNING_SHARE = 0.8
"""Of the context window: from there on answers say how full it is."""
INSTRUCTION = (
    "Summarize our conversation so far for yourself, since it is about to be left out: what was "
    "asked, what was found out and decided, names, numbers and open questions. Write nothing else."
)
"""What a model is told that is to summarize."""
_KEY = "left-out:"
_NOTE = "(What was said before this has been left out, since it became too long.)"
_SUMMARY = "(What was said before this has been left out. Its summary: {})"


class Cut(msgspec.Struct, frozen=True):
    """A history cut in two: what is ``left_out`` of it, ``pinned`` of that, and what is ``kept``.

    ``system`` is the system prompt, if there is one. ``num_before`` of a client's messages come
    before what is kept, apart from the system prompt.
    """

    system: tuple[ChatMessage, ...]
    left_out: tuple[ChatMessage, ...]
    pinned: tuple[ChatMessage, ...]
    kept: tuple[ChatMessage, ...]
    num_before: int

    def joined(self, summary: str = "") -> list[ChatMessage]:
        """The history that goes on, with a note or a summary in the place of what is left out."""
        content = _SUMMARY.format(summary) if summary else _NOTE
        note = ChatMessage("user", content, heard=True, key=f"{_KEY}{self.num_before}")
        return [*self.system, *self.pinned, note, *self.kept]


def cut(
    messages: Sequence[ChatMessage],
    sizes: Sequence[int],
    room: int,
    pinned: Collection[int] = (),
) -> Cut | None:
    """Leave out the oldest rounds, so that what stays has at most ``room`` tokens.

    ``sizes`` are the messages' own, ``pinned`` the places of those whose round is kept. The last
    round stays whatever it has. None where there is nothing to leave out.
    """
    num_system = int(bool(messages) and messages[0].role == "system")
    rounds = _rounds(messages, num_system)
    is_pinned = [any(n in pinned for n in each) for each in rounds]
    size = [sum(sizes[n] for n in each) for each in rounds]
    left = room - sum(sizes[:num_system])
    left -= sum(s for s, p in zip(size, is_pinned, strict=True) if p)
    first = len(rounds)
    while first and (first == len(rounds) or is_pinned[first - 1] or size[first - 1] <= left):
        first -= 1
        left -= 0 if is_pinned[first] else size[first]
    before = [n for each in rounds[:first] for n in each]
    saved = {n for each, p in zip(rounds[:first], is_pinned, strict=False) if p for n in each}
    if len(before) == len(saved):
        return None
    noted = next((n for n in before if noted_before(messages[n]) is not None), None)
    return Cut(
        system=tuple(messages[:num_system]),
        left_out=tuple(messages[n] for n in before if n not in saved),
        pinned=tuple(messages[n] for n in before if n in saved and n != noted),
        kept=tuple(messages[before[-1] + 1 :]),
        num_before=_num_before(messages, before),
    )


def resumed(told: Sequence[ChatMessage], remembered: Sequence[ChatMessage]) -> list[ChatMessage]:
    """A client's whole history without what has been left out of it before.

    It is left as it is where nothing was, or where it is another history.
    """
    at = next((n for n, m in enumerate(remembered) if noted_before(m) is not None), None)
    if at is None:
        return list(told)
    num_before = noted_before(remembered[at]) or 0
    num_system = int(bool(told) and told[0].role == "system")
    kept = told[num_system + num_before :]
    after = remembered[at + 1 :]
    if told[:num_system] != remembered[:num_system] or not kept or not after:
        return list(told)
    if not says_the_same(kept[0], after[0]):
        return list(told)
    return [*remembered[: at + 1], *kept]


def noted_before(message: ChatMessage) -> int | None:
    """How many of a client's messages come before what follows a note; None of another message."""
    key = message.key or ""
    number = key.removeprefix(_KEY)
    return int(number) if key != number and number.isdigit() else None


def fullness(num_tokens: int, window: int) -> tuple[str, ...]:
    """The notice that the context window is nearly full, if it is."""
    if num_tokens < WARNING_SHARE * window:
        return ()
    share = 100 * num_tokens // window
    return (f"context_nearly_full: {num_tokens} of {window} tokens are used ({share} %)",)


def _rounds(messages: Sequence[ChatMessage], start: int) -> list[range]:
    """The places of messages by round: each begins with a user who speaks after somebody else."""
    starts = [
        n
        for n in range(start, len(messages))
        if n == start or (messages[n].role == "user" and messages[n - 1].role != "user")
    ]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(messages)], strict=True)]


def _num_before(messages: Sequence[ChatMessage], before: Sequence[int]) -> int:
    """How many messages a client has before what is kept: by the last note, or by count."""
    last = max((n for n in before if noted_before(messages[n]) is not None), default=None)
    if last is None:
        return len(before)
    return (noted_before(messages[last]) or 0) + sum(1 for n in before if n > last)
