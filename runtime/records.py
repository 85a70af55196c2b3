"""What is said in a turn and what comes of it: plain data that every door and actor shares."""

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation, as chat templates know it.

    One that was ``heard`` is open: what follows in the same role continues it.
    """

    role: Role
    content: str
    name: str | None = None
    heard: bool = False


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is drawn.

    ``temperature`` 0 is greedy; ``None`` takes the model's own recommendation. The filters apply
    after temperature, in the order top-k, top-p, min-p; their defaults filter nothing. A turn with
    a ``seed`` draws the same tokens whatever else is in the batch.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None


class TurnRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt for one agent.

    ``mode`` "chat" carries the whole history (it is matched against what the agent remembers, and
    branches where it departs); "say" appends to what the agent remembers. ``agent`` ``None`` with
    "chat" means whoever remembers the longest prefix of the history. ``max_tokens`` ``None`` means
    as many as the context window leaves.
    """

    messages: tuple[ChatMessage, ...]
    mode: Literal["chat", "say"] = "chat"
    agent: str | None = None
    namespace: str = ""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one turn; ``cached_tokens`` of the prompt needed no forward pass."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


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


class TextDelta(msgspec.Struct, frozen=True, tag=True):
    """New text (possibly empty while a character is incomplete) and the token ids behind it."""

    text: str
    tokens: tuple[int, ...]


class TurnDone(msgspec.Struct, frozen=True, tag=True):
    """The turn ended and, with durability "turn", is on disk.

    The agent stands at ``head``; None when that is not on disk yet (durability "async").
    """

    agent: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None


TurnEvent = TurnStarted | TextDelta | TurnDone


class HearRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an agent is to hear, without answering; ``name`` is whose words these are."""

    agent: str
    content: str
    name: str | None = None
    role: Role = "user"
    namespace: str = ""


class Heard(msgspec.Struct, frozen=True):
    """How far an agent has got with what it was told.

    ``num_pending`` messages are not in its memory yet; it stands at ``head``, where everything
    else it has heard is durable.
    """

    num_pending: int
    head: str | None


class AgentInfo(msgspec.Struct, frozen=True):
    """What is known of an agent without waking it. Times are seconds since the epoch."""

    name: str
    system: str | None
    head: str | None
    num_tokens: int
    created: float
    last_used: float
