"""What is said in a turn and what comes of it: plain data that every door and actor shares."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from greenroom.runtime.constraint import Constraint

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]


class ToolCall(msgspec.Struct, frozen=True):
    """A tool that the assistant wants to have called; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation, as chat templates know it.

    One that was ``heard`` is open: what follows in the same role continues it. One with a ``key``
    is remembered once, however often an agent is told it; an answer carries its turn's key. An
    assistant's may hold ``tool_calls`` and the ``reasoning`` that came before its content; a tool's
    says which of them it answers (``tool_call_id``).
    """

    role: Role
    content: str
    name: str | None = None
    heard: bool = False
    key: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may ask for; ``parameters`` is a JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = {}


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn.

    ``temperature`` 0 is greedy; ``None`` takes the model's own recommendation. The filters apply
    after temperature, in the order top-k, top-p, min-p; their defaults filter nothing. A turn with
    a ``seed`` draws the same tokens whatever else is in the batch.

    Before all that the logits are shaped: ``repetition_penalty`` is a factor (1 changes nothing)
    against every token of prompt and answer, ``frequency_penalty`` is subtracted for each time that
    a token is in the answer already, ``presence_penalty`` once, and ``logit_bias`` adds to tokens.
    ``top_logprobs`` asks for the log-probability of each token and of so many of the likeliest;
    ``None`` asks for none.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None


class SessionHint(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says about who is speaking, where no agent is named.

    ``name`` is the agent that its session stands for, which may have been branched off ``parent``;
    a ``final`` request is the session's last. ``cache_key`` is only a hint: a conversation under
    the same key is taken for the same one if it begins alike.
    """

    name: str | None = None
    parent: str | None = None
    final: bool = False
    cache_key: str | None = None


Priority = Literal["low", "normal", "high"]
"""Whose prompt is computed first while several wait."""


class TurnRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt for one agent.

    ``mode`` "chat" carries the whole history (it is matched against what the agent remembers, and
    branches where it departs); "say" appends to what the agent remembers. ``agent`` ``None`` with
    "chat" means the agent of the client's ``session``, else whoever remembers the longest prefix of
    the history. ``max_tokens`` ``None`` means
    as many as the context window leaves. ``tools`` are told to the model where its chat template
    wants them; ``template_kwargs`` (``enable_thinking``, ``reasoning_effort``, ...) are variables
    of the template, which ignores those it does not know. A "say" with a ``key`` is answered once:
    asked again under the same key, the agent repeats what it remembers to have answered. Without
    ``messages`` it does nothing else, and raises NotFound where there is nothing to repeat.

    Calls of the ``tools`` are read out of the answer if it ``may_call`` them; a ``constraint`` says
    what the answer must be. Of ``n`` answers to the one prompt the agent remembers the first; the
    others have seeds of their own, made from the turn's. A bare ``prompt``, as text or as token
    ids, is continued as it is: it has no ``messages``, and its agent no name.

    A "say" that ``follows`` a segment goes on from there, wherever its agent stands; without a name
    it is for whoever stands there, or has come from there. A ``priority`` lets its prompt be
    computed before those that came a little earlier, or leave them the way.
    """

    messages: tuple[ChatMessage, ...]
    mode: Literal["chat", "say"] = "chat"
    agent: str | None = None
    namespace: str = ""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    template_kwargs: Mapping[str, Any] = {}
    key: str | None = None
    session: SessionHint | None = None
    may_call: bool = True
    constraint: Constraint | None = None
    n: int = 1
    prompt: str | tuple[int, ...] | None = None
    follows: str | None = None
    priority: Priority = "normal"


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one turn; ``cached_tokens`` of the prompt needed no forward pass.

    ``completion_tokens`` are those of all its answers, ``reasoning_tokens`` of them thoughts.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0


class Timings(msgspec.Struct, frozen=True):
    """Where one turn's time went, in milliseconds, from its arrival in the agent's mailbox.

    ``queue_ms`` until the stage took it, ``restore_ms`` decoding its segments, ``ttft_ms`` until
    its first token, ``decode_ms`` from the first token to the last, ``commit_ms`` from the last
    token until the turn was durable. ``prefill_ms`` is the time in its own prefill chunks,
    ``max_gap_ms`` the longest between two of its tokens.
    """

    queue_ms: float
    restore_ms: float
    ttft_ms: float
    decode_ms: float
    commit_ms: float
    prefill_ms: float = 0.0
    max_gap_ms: float = 0.0


class TurnStarted(msgspec.Struct, frozen=True, tag=True):
    """The request was valid and the stage has taken it: nothing but a fault stops it now."""

    agent: str
    prompt_tokens: int
    cached_tokens: int


class TurnProgress(msgspec.Struct, frozen=True, tag=True):
    """How far the prompt has been read: ``done_tokens`` of it are in the cache, restored ones too.

    Now and then while a long prompt is read; never after the first token.
    """

    prompt_tokens: int
    done_tokens: int


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and how likely the model found it, before anything shaped or filtered that.

    ``utf8`` is the token's own bytes, which may be part of a character; ``top`` are the likeliest
    tokens at its place, the likeliest first.
    """

    token: int
    logprob: float
    utf8: bytes = b""
    top: tuple["TokenLogprob", ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True):
    """More of the answer's call number ``index``; its first piece has ``id`` and ``name``."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    """New text (possibly empty while a character is incomplete) and the token ids behind it.

    ``reasoning`` and ``tool_calls`` are what came of those parts of the answer, ``logprobs`` those
    of the tokens, where they were asked for. ``choice`` counts the answers to one prompt from 0.
    """

    text: str
    tokens: tuple[int, ...]
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


class Alternative(msgspec.Struct, frozen=True):
    """Another answer to the same prompt, which the agent does not remember."""

    text: str
    finish_reason: FinishReason
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class TurnDone(msgspec.Struct, frozen=True, tag=True):
    """The turn ended and, with durability "turn", is on disk.

    The agent stands at ``head``; None when that is not on disk yet (durability "async").
    ``tool_calls`` are what the model wants to have called, ``reasoning`` what it thought aloud.
    Neither is part of ``text``. ``others`` are the answers that the agent does not remember, the
    second to the ``n``-th.
    ``notices`` say what the caller should know beside the answer, each a code, a colon and words.
    """

    agent: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None
    notices: tuple[str, ...] = ()
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    others: tuple[Alternative, ...] = ()


TurnEvent = TurnStarted | TurnProgress | TextDelta | TurnDone
