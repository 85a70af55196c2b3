"""What the stage does next: a pure function from who is there to how many tokens each gets.

The unit is one step of the stage: at most one prefill chunk, and one decode step for every
sequence that decodes. A decode step is a plan of one token, a chunk a plan of many, as in vLLM's
``num_scheduled_tokens``. Nothing here knows MLX, time or threads.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Literal

import msgspec

from greenroom.runtime.cost import ChunkCost
from greenroom.runtime.records import Priority

GRAIN = 16
"""The smallest adaptive chunk: below it a pass costs nearly as much for fewer tokens."""
GAP_STEPS = 6
"""Undisturbed decode steps that a chunk may take: with its own step, and what chunks miss their
estimate by, a gap stays below ten of them."""


WORTH_READING = 48
"""Tokens for which somebody who only hears joins the others' decode steps: joining and leaving copy
everybody's rows, so that two gaps are longer; of these few they are less than a twentieth."""
WORTH_FOLLOWING = 12
"""The same where more is to come: who follows what is being said stays until it has been said."""
SPREAD = 512
"""Tokens by which who joins may be longer than the longest that decodes: mlx-lm pads all rows to
the longest, and attends over the padding."""


HEAD_START: Mapping[Priority, int] = {"high": 8, "normal": 0, "low": -8}
"""By how many chunks, or arrivals, a sequence goes before those that came or were served earlier.
It is a head start and no more, so that whoever waits gets its turn in the end."""
WELCOME = 8
"""Chunks for which a newcomer goes before those who are being served: most have little to say."""


class Phase(Enum):
    """Where a sequence is on its way over the stage; one that has ended waits to be encoded."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


class Lane(Enum):
    """Who comes first: somebody waits for what is in the foreground, nobody for what is heard."""

    FOREGROUND = "foreground"
    BACKGROUND = "background"


class SequenceView(msgspec.Struct, frozen=True):
    """All that planning needs to know of a sequence.

    ``remaining`` prompt tokens still need a forward pass, ``context`` ones are before them.
    ``order`` grows with arrival; ``last_planned`` is the number of the step that last gave it a
    chunk, or until then ``WELCOME`` steps before it came. ``beyond`` the remaining ones so many
    tokens are known, and if it is ``open`` more may come. One that ``reads`` is a row of the decode
    batch; one that is not ``near`` takes a while to be brought on stage. ``priority`` is a head
    start before others of its lane.
    """

    uid: int
    phase: Phase
    remaining: int
    order: int
    last_planned: int = -1
    lane: Lane = Lane.FOREGROUND
    context: int = 0
    beyond: int = 0
    open: bool = False
    reads: bool = False
    near: bool = True
    priority: Priority = "normal"


class Budget(msgspec.Struct, frozen=True):
    """The limits of one step.

    ``max_batch_size`` sequences on stage at most. ``chunk_tokens`` is the largest chunk, used when
    nobody decodes. While somebody does, ``schedule`` "adaptive" gives a chunk only as many tokens
    as fit into ``max_decode_gap_s`` at the ``cost`` that was measured; "fixed" always cuts at
    ``chunk_tokens``, so that equal prompts are computed in equal pieces. A chunk in the
    background takes at most ``max_background_s``: a newcomer may have to wait for all of it.
    A decode step has ``max_rows`` rows at most that decode or read. Unless ``told_reads``, only who
    follows what is being said may read; who has been told something waits for a pause.
    """

    max_batch_size: int
    chunk_tokens: int
    schedule: Literal["adaptive", "fixed"]
    max_decode_gap_s: float
    cost: ChunkCost
    max_background_s: float
    max_rows: int = 0
    told_reads: bool = True

    @property
    def grid(self) -> int | None:
        """The size of every chunk but the last, where that is fixed."""
        return self.chunk_tokens if self.schedule == "fixed" else None


class StepPlan(msgspec.Struct, frozen=True):
    """Tokens per sequence: ``prefill`` one (uid, tokens) or none, ``decode`` one token for each.

    ``background`` is a chunk that nobody waits for, in a step that has nothing else to do, or has
    room for somebody to catch up. Who only hears and is in ``read`` is given one token in the step
    of those who decode.
    """

    prefill: tuple[int, int] | None
    decode: tuple[int, ...]
    background: tuple[int, int] | None = None
    read: tuple[int, ...] = ()

    @property
    def num_tokens(self) -> dict[int, int]:
        """The plan as one mapping from uid to tokens."""
        chunks = dict(c for c in (self.prefill, self.background) if c)
        return dict.fromkeys((*self.decode, *self.read), 1) | chunks


def plan(sequences: Sequence[SequenceView], budget: Budget) -> StepPlan:
    """Decide one step.

    Everybody who decodes gets a token. Of those who prefill (and those who wait, while there is
    room on stage) the one served longest ago gets a chunk, so prefilling agents alternate and
    nobody starves; a priority counts as a few chunks, or arrivals, more or less. The background
    gets a chunk only when the foreground has nothing to do at all; while somebody decodes, it reads
    along as far as there are rows. Who is to follow what is being said and is behind by more than a
    few tokens, of what was said before, catches up first, if one chunk is enough.
    """
    foreground = [s for s in sequences if s.lane is Lane.FOREGROUND]
    decode = tuple(s.uid for s in foreground if s.phase is Phase.DECODE)
    on_stage = [s for s in foreground if s.phase in (Phase.PREFILL, Phase.DECODE)]
    room = max(0, budget.max_batch_size - len(on_stage))
    waiting = sorted((s for s in foreground if s.phase is Phase.WAITING), key=_arrival)
    candidates = [s for s in on_stage if s.phase is Phase.PREFILL] + waiting[:room]
    read = _readers(sequences, budget) if decode else ()
    if candidates:
        chosen = min(candidates, key=lambda s: (_last_planned(s), _arrival(s)))
        tokens = chunk(chosen, budget, decoding=bool(decode))
        return StepPlan(prefill=(chosen.uid, tokens), decode=decode, read=read)
    if decode:
        behind = _catching_up([s for s in sequences if s.uid in read], budget)
        if behind is not None:
            read = tuple(uid for uid in read if uid != behind[0])
        return StepPlan(prefill=None, decode=decode, background=behind, read=read)
    return StepPlan(prefill=None, decode=(), background=_background(sequences, budget))


def _arrival(s: SequenceView) -> int:
    return s.order - HEAD_START[s.priority]


def _last_planned(s: SequenceView) -> int:
    return s.last_planned - HEAD_START[s.priority]


def _hearing(sequences: Sequence[SequenceView], budget: Budget) -> list[SequenceView]:
    """Those in the background that have something to compute."""
    return [
        s
        for s in sequences
        if s.lane is Lane.BACKGROUND
        and s.phase in (Phase.PREFILL, Phase.WAITING)
        and due(s, budget.grid)
    ]


def due(s: SequenceView, grid: int | None) -> int:
    """How many of its remaining tokens can be computed now: a chunk of a fixed size, the ``grid``,
    is not cut short where more is to come."""
    if grid and s.open and not s.beyond:
        return s.remaining - s.remaining % grid
    return s.remaining


def _background(sequences: Sequence[SequenceView], budget: Budget) -> tuple[int, int] | None:
    """A chunk of what is heard: one sequence after the other, so that one only takes memory."""
    heard = _hearing(sequences, budget)
    if not heard:
        return None
    chosen = min(heard, key=lambda s: (s.phase is Phase.WAITING, s.order))
    return chosen.uid, background_chunk(chosen, budget)


def _readers(sequences: Sequence[SequenceView], budget: Budget) -> tuple[int, ...]:
    """Who reads along beside those who decode: whoever does already, then who follows what is being
    said, then whoever came first. A fixed schedule has none: its chunks are its own.

    Who has begun to read stays while there is anything to read, and a row for it.
    """
    decoding = [s.context for s in sequences if s.phase is Phase.DECODE]
    rows = budget.max_rows - len(decoding)
    if rows <= 0 or budget.schedule == "fixed":
        return ()
    longest = max(decoding) + SPREAD
    able = [
        s
        for s in _hearing(sequences, budget)
        if (s.open or budget.told_reads) and (s.reads or _worth_reading(s, longest))
    ]
    able.sort(key=lambda s: (not s.reads, not s.open, s.phase is Phase.WAITING, s.order))
    return tuple(s.uid for s in able[:rows])


def _catching_up(readers: Sequence[SequenceView], budget: Budget) -> tuple[int, int] | None:
    """The whole of what somebody is behind who begins to follow: read token by token it would be
    behind to the end. It makes one gap, no longer than a newcomer's chunk may."""
    for s in readers:
        most = _fitting(s, budget, budget.max_decode_gap_s)
        if s.open and not s.reads and GRAIN <= s.remaining <= most:
            return s.uid, s.remaining
    return None


def _worth_reading(s: SequenceView, longest: int) -> bool:
    known = s.remaining + s.beyond
    least = WORTH_FOLLOWING if s.open else WORTH_READING
    return s.near and known >= least and s.context <= longest


def decode_gap_s(wanted_s: float, decode_step_s: float) -> float:
    """Seconds that a chunk may hold a token back: ``wanted_s``, or for 0 a few steps' worth."""
    return wanted_s or GAP_STEPS * decode_step_s


def chunk(s: SequenceView, budget: Budget, *, decoding: bool) -> int:
    """How many of its remaining tokens the next chunk takes: at least 1, all at most."""
    limit = budget.chunk_tokens
    if budget.schedule == "fixed":
        return min(s.remaining, limit)
    if decoding:
        limit = _fitting(s, budget, budget.max_decode_gap_s)
    return _equal_pieces(s.remaining, limit)


def background_chunk(s: SequenceView, budget: Budget) -> int:
    """How many of its remaining heard tokens the next chunk takes: at least 1, all at most."""
    if budget.schedule == "fixed":
        return min(s.remaining, budget.chunk_tokens)
    return _equal_pieces(s.remaining, _fitting(s, budget, budget.max_background_s))


def _fitting(s: SequenceView, budget: Budget, seconds: float) -> int:
    return max(GRAIN, budget.cost.fitting(seconds, s.context, budget.chunk_tokens))


def _equal_pieces(remaining: int, limit: int) -> int:
    # A short last chunk would cost a whole pass for a few tokens.
    pieces = -(-remaining // limit)
    return -(-remaining // pieces)
