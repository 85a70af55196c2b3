"""One job on its way over the stage."""

import itertools
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from greenroom.runtime.cache import resume_position, slice_states
from greenroom.runtime.codec import LAST_HIDDEN, Codec, Payload, link
from greenroom.runtime.encoding import encode
from greenroom.runtime.grammar import GrammarMask
from greenroom.runtime.head import OutputHead
from greenroom.runtime.job import Encoded, Job, JobTimes
from greenroom.runtime.plan import Lane, Phase, SequenceView
from greenroom.runtime.quantize import Array
from greenroom.runtime.resident import HEADROOM, Part, Span
from greenroom.runtime.resume import prompt_limit
from greenroom.runtime.sampling import Draw, make_draw
from greenroom.runtime.snapshot import Snapshot, take
from greenroom.runtime.spec import CacheSpec


class StageSequence:
    """What the stage knows of a job, from its arrival until it is encoded.

    ``resumed`` tokens come from memory, ``computed`` are in ``cache`` so far; ``marks`` are the
    positions at which chunks must end, because a snapshot is taken there. ``last_hidden`` is what
    the answer's first token is sampled from, once there is one. ``order`` grows with arrival,
    ``planned`` is the last step that gave it a chunk. Times are the stage's clock's.
    """

    def __init__(self, job: Job, spec: CacheSpec, head: OutputHead, order: int, now: float) -> None:
        self.job = job
        self.order = order
        self.phase = Phase.WAITING
        self.lane = Lane.BACKGROUND if job.background else Lane.FOREGROUND
        self.planned = -1
        grammar = None if job.matcher is None else GrammarMask(job.matcher)
        self.draw: Draw = make_draw(job.sampling, job.tokens, grammar)
        self.cache: list[Any] = []
        pieces = [(piece.payload, piece.used) for piece in job.pieces]
        self.resumed = self.computed = resume_position(spec, pieces, _limit(spec, head, job))
        self.last_hidden: Array | None = None
        if self.resumed == len(job.tokens):
            self.last_hidden = job.pieces[-1].payload.arrays[LAST_HIDDEN]
        self.marks = _marks(spec, job)
        self.snapshots: list[Snapshot] = []
        self.emitted = 0
        self.first_token = 0
        self.in_batch = False
        self.stale = False  # the bytes of something it stands on are gone
        self.kept = 0  # sampled tokens whose K and V are in ``cache``
        self.in_need = False  # it has been told that it waits for memory
        self.submitted_at = now
        self.admitted_at = self.restore_s = self.prefill_s = 0.0
        self.first_at = self.last_at = self.max_gap_s = 0.0

    def view(self, uid: int, *, near: bool = True) -> SequenceView:
        """What planning needs to know; ``remaining`` ends at the next mark.

        A prompt that is remembered whole counts as one token: its first comes as soon.
        """
        stop = next((mark for mark in self.marks if mark > self.computed), len(self.job.tokens))
        return SequenceView(
            uid,
            self.phase,
            stop - self.computed or int(self.phase is Phase.WAITING),
            self.order,
            self.planned,
            self.lane,
            context=self.computed,
            beyond=len(self.job.tokens) - stop,
            open=self.job.open,
            priority=self.job.priority,
            reads=self.in_batch,
            near=near,
        )

    @property
    def headroom(self) -> int:
        """Tokens for which there should be room behind the ``computed`` ones."""
        behind = HEADROOM if self.job.open else min(self.job.max_tokens, HEADROOM)
        return len(self.job.tokens) - self.computed + behind

    def pieces(self) -> list[tuple[Payload, int]]:
        """The job's pieces, the last ones shortened to the ``resumed`` tokens."""
        kept: list[tuple[Payload, int]] = []
        left = self.resumed
        for piece in self.job.pieces:
            if left <= 0:
                break
            kept.append((piece.payload, min(piece.used, left)))
            left -= piece.used
        return kept

    @property
    def parts(self) -> list[Part]:
        """Whose rows the ``resumed`` ones are."""
        keys = [piece.key for piece in self.job.pieces]
        return [Part(k, rows) for k, (_, rows) in zip(keys, self.pieces(), strict=False)]

    def gapped(self, now: float) -> float:
        """A token has come; seconds since the one before."""
        gap_s, self.last_at = now - self.last_at, now
        self.max_gap_s = max(self.max_gap_s, gap_s)
        self.emitted += 1
        return gap_s

    def following(self, segments: Sequence[Encoded]) -> list[Span]:
        """What follows the ``resumed`` rows once the sequence is encoded in ``segments``."""
        spans: list[Span] = []
        at = 0
        for piece in self.job.pieces:
            first = max(0, self.resumed - at)
            if first < piece.used:
                spans.append(Span(piece.payload, first, piece.used - first))
            at += piece.used
        return [*spans, *(Span(e.payload, 0, e.stop - e.start) for e in segments)]

    def encoded(
        self, codec: Codec, spec: CacheSpec, keep: int, pool: Executor | None = None
    ) -> tuple[Encoded, ...]:
        """What is new with its first ``keep`` sampled tokens, encoded, cut at its boundaries."""
        if self.kept and spec.forgetful:
            self.snapshots.append(take(self.cache, len(self.job.tokens) + self.kept))
        cuts = sorted({self.job.encode_from, *self.job.boundaries, len(self.job.tokens) + keep})
        segments: list[Encoded] = []
        for a, b in itertools.pairwise(cuts):
            state = slice_states(self.cache, a, b, self.snapshots)
            last_hidden = self.last_hidden if b == len(self.job.tokens) else None
            segments.append(Encoded(a, b, encode(codec, spec, state, pool, last_hidden)))
        return tuple(segments)

    @property
    def times(self) -> JobTimes:
        """When everything happened."""
        return JobTimes(
            submitted=self.submitted_at,
            admitted=self.admitted_at,
            restore_s=self.restore_s,
            prefill_s=self.prefill_s,
            first_token=self.first_at,
            last_token=self.last_at,
            max_gap_s=self.max_gap_s,
        )


def _limit(spec: CacheSpec, head: OutputHead, job: Job) -> int:
    """Up to where a job may be resumed."""
    links = [link(spec, piece.payload, piece.used) for piece in job.pieces]
    limit = prompt_limit(links, len(job.tokens))
    if limit == len(job.tokens):
        last_hidden = job.pieces[-1].payload.arrays[LAST_HIDDEN]
        return limit if job.max_tokens and head.fits(last_hidden) else limit - 1
    return limit


def _marks(spec: CacheSpec, job: Job) -> tuple[int, ...]:
    """Where snapshots are taken: at boundaries, if there are layers that forget.

    A state at the prompt's end is taken one token early: a prompt that is sent again still needs
    the forward pass that its answer is sampled from. What is only heard is no prompt yet. One that
    encodes nothing, as a second answer, is looked at where it ends all the same: the third may
    have to take it from there, once the first is gone.
    """
    if not job.max_tokens:
        return job.boundaries if spec.forgetful else ()
    ends = job.boundaries or (len(job.tokens),)
    marks = {b for b in ends if spec.windows or b < len(job.tokens)}
    if spec.stateful:
        marks.add(len(job.tokens) - 1)
    return tuple(sorted(marks)) if spec.forgetful else ()
