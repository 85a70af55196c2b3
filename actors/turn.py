"""The arithmetic of one turn: what to reuse, what to compute, what to remember. Pure."""

import secrets
from collections.abc import Callable, Collection, Sequence

import msgspec

from greenroom.actors.gpu_messages import ModelFacts
from greenroom.runtime.agent_records import LogEntry
from greenroom.runtime.echo import restored
from greenroom.runtime.errors import InvalidRequest, NotFound
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.job import Encoded
from greenroom.runtime.overflow import resumed
from greenroom.runtime.records import ChatMessage, Sampling, ToolCall, TurnRequest
from greenroom.runtime.resume import Link, resume_at
from greenroom.runtime.segments import (
    Kind,
    Message,
    Piece,
    Segment,
    chain_length,
    make_segment,
    transcript,
)
from greenroom.runtime.spec import CacheSpec
from greenroom.runtime.text import Prompt, Remembered


def whole_history(
    request: TurnRequest,
    chain: Sequence[Piece],
    system: str | None,
    heard: Sequence[ChatMessage] = (),
) -> list[ChatMessage]:
    """The messages to render: a chat brings them all, a "say" continues the remembered ones.

    What was ``heard`` since then comes before what is said. What is known by its key is left out.
    """
    messages = list(request.messages)
    if request.mode == "say":
        before = past(chain, system)
        if before and messages[:1] == before[:1] and messages[0].role == "system":
            del messages[0]  # clients that send only what is new repeat it all the same
        brought = {m.key for m in messages if m.key is not None}
        waiting = [m for m in heard if m.key not in brought]
        return [*before, *unknown([*waiting, *messages], before)]
    if system is not None and messages[0].role != "system":
        messages.insert(0, ChatMessage("system", system))
    before = past(chain, system)
    return restored(resumed(messages, before), before)


def bare_prompt(request: TurnRequest) -> Callable[..., Prompt] | None:
    """How a request's bare prompt is tokenized, whatever its agent knows; None if it has none."""
    prompt = request.prompt
    if prompt is None:
        return None
    return lambda text, *_: text.bare(prompt)


def past(chain: Sequence[Piece], system: str | None) -> list[ChatMessage]:
    """The messages that a chain stands for; of an empty one the system prompt, if there is one."""
    messages = [msgspec.convert(m, ChatMessage) for m in transcript(chain)]
    return messages or ([] if system is None else [ChatMessage("system", system)])


def as_plain(message: ChatMessage) -> Message:
    """A message as transcripts keep it, equal to what comes back from disk."""
    plain: Message = msgspec.to_builtins(message)
    if message.tool_calls:
        plain["tool_calls"] = list(plain["tool_calls"])
    return plain


def unknown(messages: Sequence[ChatMessage], known: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages without those whose key is that of a known one."""
    keys = {m.key for m in known if m.key is not None}
    return [m for m in messages if m.key not in keys]


def answered(request: TurnRequest, chain: Sequence[Piece]) -> str | None:
    """What the agent has answered under the request's key before; None if it has not."""
    if request.key is None or request.mode != "say":
        return None
    said = (m for m in transcript(chain) if m["role"] == "assistant")
    return next((str(m["content"]) for m in said if m.get("key") == request.key), None)


def remembered(
    chain: Sequence[Piece], fingerprint: str, decode: Callable[[Sequence[int]], str]
) -> list[Remembered]:
    """The pieces of a chain as text and tokens of the model with ``fingerprint``.

    They end before a piece whose cut (as ``decode`` tells it) is not one of its text, too.
    """
    pieces: list[Remembered] = []
    for piece in chain:
        text, tokens = piece.segment.text, tuple(piece.segment.tokens[: piece.used].tolist())
        if piece.segment.fingerprint != fingerprint:
            break
        if piece.used < piece.segment.num_tokens:
            whole, text = text, decode(tokens)
            if not whole.startswith(text):
                break
        pieces.append(Remembered(text, tokens, piece.segment.kind == "heard"))
    return pieces


def find_segment(chain: Sequence[Piece], name: str, param: str) -> str:
    """The id of the segment of a chain that has this id, or alone begins with it.

    Raises NotFound where there is none, InvalidRequest where there are several.
    """
    found = [piece.segment.id for piece in chain if piece.segment.id.startswith(name)]
    if not name or not found:
        raise NotFound(
            f"no segment {name!r} is in this agent's chain", param=param, code="segment_not_found"
        )
    if len(found) > 1 and name not in found:
        raise InvalidRequest(
            f"{len(found)} segments of this agent's chain begin with {name!r}: give more of the id",
            param=param,
            code="ambiguous_segment",
        )
    return name if name in found else found[0]


def log_entries(
    chain: Sequence[Piece], links: Sequence[Link], spec: CacheSpec, pinned: Collection[str]
) -> tuple[LogEntry, ...]:
    """A chain to look at, and what it would cost to go back to each of its segments.

    ``links`` say what the segments hold, up to the first one whose bytes are gone.
    """
    entries: list[LogEntry] = []
    for number, segment in enumerate(piece.segment for piece in chain):
        # Back there, all of the segment counts: what came after it may have begun within it.
        whole = [msgspec.structs.replace(k, used=k.num_tokens) for k in links[number : number + 1]]
        before = [*links[:number], *whole]
        stands = resume_at(before, spec.windows, stateful=spec.stateful, limit=segment.end)
        entries.append(
            LogEntry(
                id=segment.id,
                kind=segment.kind,
                num_tokens=segment.num_tokens,
                end=segment.end,
                num_bytes=segment.num_bytes,
                created=segment.created,
                pinned=segment.id in pinned,
                recompute_tokens=segment.end - stands,
            )
        )
    return tuple(entries)


def clip_max_tokens(request: TurnRequest, prompt: Prompt, window: int) -> int:
    """How many tokens may be generated: at least one, and never past the context window.

    Raises InvalidRequest where the prompt alone leaves no room.
    """
    room = window - len(prompt.tokens)
    if room < 1:
        raise InvalidRequest(
            f"the prompt has {len(prompt.tokens)} tokens, and this model's context window holds "
            f"{window}, the answer included: shorten it",
            param="messages" if request.prompt is None else "prompt",
            code="context_length_exceeded",
        )
    return room if request.max_tokens is None else min(room, request.max_tokens)


def fill_sampling(sampling: Sampling, facts: ModelFacts) -> Sampling:
    """The same with the model's defaults filled in, and a seed of its own if none was given."""
    return msgspec.structs.replace(
        sampling,
        temperature=facts.temperature if sampling.temperature is None else sampling.temperature,
        top_p=facts.top_p if sampling.top_p is None else sampling.top_p,
        seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
    )


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """All that the segments of one turn are made from, once its answer is there.

    ``matched`` is the remembered chain that the prompt continues.
    """

    namespace: str
    fingerprint: str
    codec: str
    matched: tuple[Piece, ...]
    messages: tuple[ChatMessage, ...]
    prompt: Prompt
    frame: Frame = PLAIN

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Where new segments end: after a new system prompt, and after the prompt."""
        matched, end = chain_length(self.matched), len(self.prompt.tokens)
        return tuple(b for b in (self.prompt.system_end, end) if b > matched)


class Answer(msgspec.Struct, frozen=True):
    """What was generated: the text that the caller saw; the tokens and the text that are kept.

    ``reasoning`` and ``tool_calls`` are what was read out of the text, as the caller saw it.
    """

    visible: str
    tokens: tuple[int, ...]
    text: str
    key: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def message(self) -> ChatMessage:
        """The answer as a message of the history."""
        return ChatMessage(
            "assistant",
            self.visible,
            key=self.key,
            tool_calls=self.tool_calls,
            reasoning=self.reasoning,
        )


def make_segments(
    draft: Draft,
    encoded: Sequence[Encoded],
    answer: Answer | None,
    texts: Sequence[str],
    created: float,
) -> tuple[Segment, ...]:
    """The new segments of a finished turn, one for each encoded run, in order.

    ``texts`` are the prompt runs' texts. The first run that may carry them carries the messages
    that the chain did not know; the answer's run carries the assistant's, or else the last one.
    Without an answer nothing was said: the last run carries what was heard.
    """
    plain = [as_plain(m) for m in draft.messages]
    known = _shared(transcript(draft.matched), plain)
    said = [as_plain(answer.message)] if answer else []
    parent = draft.matched[-1].segment.id if draft.matched else None
    tokens = draft.prompt.tokens + (answer.tokens if answer else ())
    segments: list[Segment] = []
    for run, text in zip(encoded, [*texts, answer.text if answer else ""], strict=False):
        kind: Kind = "prompt" if answer else "heard"
        new = plain[known:]
        if run.start >= len(draft.prompt.tokens):
            kind = "generation"
            new = [*new, *said]
        elif run.stop <= draft.prompt.system_end:
            kind = "system"
            new = [m for m in plain[known:1] if m["role"] == "system"]
        elif run is encoded[-1]:
            new = [*new, *said]  # none of the answer's tokens is kept, yet it was said
        segment = make_segment(
            parent=parent,
            start=run.start,
            tokens=tokens[run.start : run.stop],
            text=text,
            kind=kind,
            namespace=draft.namespace,
            fingerprint=draft.fingerprint,
            codec=draft.codec,
            transcript_base=known,
            messages=new,
            num_bytes=run.payload.num_bytes,
            created=created,
        )
        segments.append(segment)
        parent = segment.id
        known += len(new)
    return tuple(segments)


def is_known(draft: Draft) -> bool:
    """Whether the remembered chain is all of the prompt, says just that, and ends with a segment.

    Then there is nothing to compute and nothing to write: somebody has heard the same before.
    """
    matched = draft.matched
    if chain_length(matched) != len(draft.prompt.tokens):
        return False
    plain = [as_plain(m) for m in draft.messages]
    whole = matched[-1].used == matched[-1].segment.num_tokens
    return whole and transcript(matched) == plain


def is_prefix(pieces: Sequence[Piece], chain: Sequence[Piece]) -> bool:
    """Whether the pieces are the beginning of that very chain, segment by segment."""
    if len(pieces) > len(chain):
        return False
    pairs = list(zip(pieces, chain, strict=False))
    if any(p.segment.id != c.segment.id or p.used > c.used for p, c in pairs):
        return False
    return all(p.used == c.used for p, c in pairs[:-1])


def _shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Length of the longest common prefix."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
