"""A turn as the stage sees it: token ids and encoded bytes in, token ids and encoded bytes out."""

from collections.abc import Callable
from typing import Any

import msgspec
from llguidance import LLMatcher

from greenroom.runtime.codec import Payload
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.records import FinishReason, Priority, Sampling, TokenLogprob


class Piece(msgspec.Struct, frozen=True):
    """The first ``used`` tokens of one encoded segment; ``key`` is its id, where that is known."""

    payload: Payload
    used: int
    key: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One turn for the stage.

    ``tokens`` is the whole prompt; the ``pieces`` cover its first tokens, in order. At the end the
    tokens from ``encode_from`` on are encoded, cut at each of ``boundaries`` (absolute positions,
    ascending, the prompt's end last). At least one token of the prompt is computed, since the first
    answer token is sampled from what comes of it, unless the last piece ends with the prompt and
    has kept that. ``sampling`` has every default filled in. ``handle`` may name a resident copy
    whose first rows are what the pieces decode to.

    With ``max_tokens`` 0 nothing is generated: the job is done when its prompt is, without a
    ``JobEnded``. One in the ``background`` gets on only while nobody else is on stage, or as a
    reading row beside those who decode. A
    ``matcher``, which is the job's own, keeps what is generated within a grammar. Jobs of one
    ``scope`` that begin alike may share what is computed; with None nothing is shared.

    One that is ``open`` is a rehearsal: more tokens may be given to it, nothing of it is encoded,
    and it stays until it is cancelled, until memory is short, or until a job comes onto the stage
    that names it as its ``rehearsal`` and takes over what of it is of use. Its boundaries do not
    have its end among them. ``priority`` is among those who wait for the stage.
    """

    tokens: tuple[int, ...]
    pieces: tuple[Piece, ...]
    encode_from: int
    boundaries: tuple[int, ...]
    max_tokens: int
    stop_tokens: tuple[int, ...]
    sampling: Sampling
    handle: int | None = None
    background: bool = False
    matcher: LLMatcher | None = None
    scope: str | None = None
    open: bool = False
    rehearsal: int | None = None
    priority: Priority = "normal"


class Encoded(msgspec.Struct, frozen=True):
    """The positions ``[start, stop)`` of a sequence, encoded."""

    start: int
    stop: int
    payload: Payload


class JobTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds on the stage's clock: when each thing happened, and how long some of them took.

    ``prefill_s`` is the time in the job's own chunks, ``max_gap_s`` the longest between two of
    its tokens.
    """

    submitted: float
    admitted: float
    restore_s: float
    prefill_s: float
    first_token: float
    last_token: float
    max_gap_s: float


class JobWaits(msgspec.Struct, frozen=True, tag=True):
    """There is no memory for the job yet; it starts when there is, or is refused."""

    needed: int
    free: int
    limit: int


class HotWanted(msgspec.Struct, frozen=True, tag=True):
    """The stage needs so many bytes of what encoded segments take in memory."""

    num_bytes: int


class JobRefused(msgspec.Struct, frozen=True, tag=True):
    """The job is off the stage without having been on it."""

    error: GreenroomError


class JobStarted(msgspec.Struct, frozen=True, tag=True):
    """The stage has admitted the job; ``cached_tokens`` of its prompt need no forward pass."""

    cached_tokens: int


class JobProgress(msgspec.Struct, frozen=True, tag=True):
    """A chunk of a prompt has been read that was not its last: ``done_tokens`` are computed."""

    done_tokens: int


class JobTokens(msgspec.Struct, frozen=True, tag=True):
    """Newly sampled token ids, the end token included, and their ``logprobs`` where asked for."""

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


class JobEnded(msgspec.Struct, frozen=True, tag=True):
    """No more tokens come; the stage holds the floats until it is told how many to remember.

    ``out_of_memory``: there was none for the next token, whatever the reason says.
    """

    reason: FinishReason
    out_of_memory: bool = False


class JobDone(msgspec.Struct, frozen=True, tag=True):
    """The job is off the stage. ``segments`` tile the positions from ``encode_from`` on.

    There are none of a rehearsal. They may end before the last sampled token: a token whose K and V
    were never computed (the only token of a one-token answer) is not remembered. The stage may keep
    a decoded copy of all of it under the job's uid, for the next turn to take as its ``handle``.
    """

    segments: tuple[Encoded, ...]
    times: JobTimes


JobEvent = (
    JobWaits | HotWanted | JobRefused | JobStarted | JobProgress | JobTokens | JobEnded | JobDone
)
Emit = Callable[[int, JobEvent], Any]
"""Called on the MLX thread with a job's uid and what happened to it."""
