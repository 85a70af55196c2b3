"""What is asked and told of agents between their turns: plain data that every door shares."""

from typing import Literal

import msgspec

from greenroom.runtime.records import Role


class HearRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an agent is to hear, without answering; ``name`` is whose words these are.

    Told twice under one ``key``, it is heard once.
    """

    agent: str
    content: str
    name: str | None = None
    role: Role = "user"
    namespace: str = ""
    key: str | None = None


class Heard(msgspec.Struct, frozen=True):
    """How far an agent has got with what it was told.

    ``num_pending`` messages are not in its memory yet; it stands at ``head``, where everything
    else it has heard is durable.
    """

    num_pending: int
    head: str | None


Overflow = Literal["error", "drop_oldest", "summarize"]
"""What becomes of a history that outgrows the context window."""
Share = Literal["namespace", "none"]
"""With whom an agent's memory may be shared: whoever has its namespace, or nobody."""


class SpawnRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The agent that is wanted; ``None`` leaves a thing as it is, or as it is by default.

    ``system`` is its system prompt, ``model`` the model it is to be an agent of. After ``ttl_s``
    seconds without a turn it is forgotten. With ``share`` "none" nothing that it remembers is
    reused by any other agent, nor the other way round.
    """

    namespace: str = ""
    name: str
    system: str | None = None
    model: str | None = None
    ttl_s: float | None = None
    overflow: Overflow | None = None
    share: Share | None = None


class AgentInfo(msgspec.Struct, frozen=True):
    """What is known of an agent without waking it. Times are seconds since the epoch."""

    name: str
    system: str | None
    head: str | None
    num_tokens: int
    created: float
    last_used: float
    ttl_s: float | None = None
    overflow: Overflow | None = None
    share: Share = "namespace"


class LogEntry(msgspec.Struct, frozen=True):
    """One segment of an agent's chain: ``num_tokens`` tokens up to position ``end``.

    ``num_bytes`` is its encoded size, ``created`` seconds since the epoch. An agent that is rolled
    back to it has to compute ``recompute_tokens`` anew before its next prompt: 0 unless bytes are
    gone, or a layer that forgets has nothing stored there.
    """

    id: str
    kind: str
    num_tokens: int
    end: int
    num_bytes: int
    created: float
    pinned: bool
    recompute_tokens: int


class Probe(msgspec.Struct, frozen=True):
    """What a turn would find: its agent (None: a new one), and how much of its prompt is cached."""

    agent: str | None
    prompt_tokens: int
    cached_tokens: int


class Forgotten(msgspec.Struct, frozen=True):
    """What has been erased: segments that nobody else needs, and their bytes on disk."""

    num_segments: int
    num_bytes: int
