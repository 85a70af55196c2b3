"""The stage: the sequences that the model works on now. Lives on the thread that owns MLX."""

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Literal, cast

import mlx.core as mx
import mlx.nn as nn
import msgspec
from mlx_lm.models.cache import trim_prompt_cache

from greenroom.runtime.batch import DecodeBatch, Row
from greenroom.runtime.cache import restore, slice_states
from greenroom.runtime.codec import Codec
from greenroom.runtime.encoding import encode
from greenroom.runtime.job import (
    Emit,
    Encoded,
    Job,
    JobDone,
    JobEnded,
    JobStarted,
    JobTimes,
    JobTokens,
)
from greenroom.runtime.pace import Pace, StageCounters
from greenroom.runtime.plan import (
    GRAIN,
    Budget,
    Lane,
    Phase,
    StepPlan,
    decode_gap_s,
    plan,
)
from greenroom.runtime.records import FinishReason
from greenroom.runtime.resident import HEADROOM, ResidentCaches, Span, can_be_resident
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.snapshot import take
from greenroom.runtime.spec import CacheSpec


class StageLimits(msgspec.Struct, frozen=True):
    """The part of the settings that shapes a step; see ``Budget`` and ``decode_gap_s``."""

    max_batch_size: int
    chunk_tokens: int
    schedule: Literal["adaptive", "fixed"]
    max_decode_gap_s: float
    resident_bytes: int


class Stage:
    """Interleaved chunked prefill and batched decode: plan, run, apply.

    Every method is called on the thread that owns MLX. ``emit`` gets each job's events in order:
    ``JobStarted``, ``JobTokens`` …, ``JobEnded`` (unless ``finish`` came first), and ``JobDone``
    once ``finish`` was called; nothing after a ``cancel``. A job that generates nothing has only
    the first and the last of these. ``pool`` helps to decode segments.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: CacheSpec,
        codec: Codec,
        limits: StageLimits,
        emit: Emit,
        pool: Executor | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._spec = spec
        self._codec = codec
        self._limits = limits
        self._emit = emit
        self._pool = pool
        self._now = now
        self._sequences: dict[int, StageSequence] = {}
        self._batch = DecodeBatch(model)
        self._pace = Pace()
        self._resident = ResidentCaches(spec, limits.resident_bytes)
        self._order = 0
        self._last_decode: float | None = None
        self.counters = StageCounters()

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        ended = all(s.phase is Phase.ENDED for s in self._sequences.values())
        return ended and not self._resident.unsettled

    def count(self) -> StageCounters:
        """The counters as they are now."""
        return msgspec.structs.replace(
            self.counters,
            num_jobs=len(self._sequences),
            resident_bytes=self._resident.num_bytes,
        )

    def caches(self, uid: int) -> list[Any]:
        """The live caches of a job that is being prefilled, to look at."""
        return self._sequences[uid].cache

    def submit(self, uid: int, job: Job) -> None:
        """Queue a job; it starts when there is room on stage."""
        self._sequences[uid] = StageSequence(job, self._spec, self._order)
        self._order += 1
        self.counters.jobs += 1

    def make_room(self, num_bytes: int) -> None:
        """Resident copies may take so many bytes from now on; never more than their own limit."""
        self._resident.limit(min(num_bytes, self._limits.resident_bytes))

    def cancel(self, uid: int) -> None:
        """Take a job off the stage at once and forget it; unknown and finished jobs are ignored."""
        sequence = self._sequences.pop(uid, None)
        if sequence is None:
            return
        self.counters.cancelled += 1
        if sequence.in_batch:
            self._batch.drop([uid])

    def finish(self, uid: int, keep: int) -> None:
        """Encode a job that has ended, remembering its first ``keep`` sampled tokens.

        One that still decodes is ended here: its text was found to be complete (a stop string).
        A job that has been cancelled is ignored.
        """
        s = self._sequences.get(uid)
        if s is None or s.phase not in (Phase.DECODE, Phase.ENDED):
            return
        if s.in_batch:
            s.cache, s.kept = self._batch.leave(uid), s.emitted
        self._encode(uid, s, min(keep, s.kept))

    def step(self) -> None:
        """One step: a token for everybody who decodes, and at most one prefill chunk.

        The chunk comes last, so that a first token goes out as soon as it is there. Only a step
        with nothing better to do works on the resident copy that a finished turn has left.
        """
        todo = plan([s.view(uid) for uid, s in self._sequences.items()], self._budget())
        for uid in todo.decode:
            self._join(uid, self._sequences[uid])
        if todo.decode:
            self._decode(todo)
        if todo.prefill is not None:
            self._prefill(*todo.prefill)
        elif not todo.decode and self._resident.unsettled:
            self._resident.settle()
        elif todo.background is not None:
            self.counters.background_chunks += 1
            self._prefill(*todo.background)
        self.counters.steps += 1

    def promote(self, uid: int) -> None:
        """Somebody waits for this job now: it leaves the background. Unknown ones are ignored."""
        if (sequence := self._sequences.get(uid)) is not None:
            sequence.lane = Lane.FOREGROUND

    def _budget(self) -> Budget:
        return Budget(
            max_batch_size=self._limits.max_batch_size,
            chunk_tokens=self._limits.chunk_tokens,
            schedule=self._limits.schedule,
            max_decode_gap_s=decode_gap_s(self._limits.max_decode_gap_s, self._pace.decode_step_s),
            prefill_tokens_per_s=self._pace.prefill_tokens_per_s,
        )

    def _admit(self, uid: int, s: StageSequence) -> None:
        s.admitted_at = self._now()
        self._emit(uid, JobStarted(cached_tokens=s.computed))
        s.cache = self._resident.take(s.job.handle) or []
        if s.cache:
            trim_prompt_cache(s.cache, s.cache[0].offset - s.computed)
            self.counters.resident_hits += 1
        else:
            headroom = len(s.job.tokens) - s.computed + min(s.job.max_tokens, HEADROOM)
            s.cache = restore(self._spec, s.pieces(), headroom, self._pool)
        s.restore_s = self._now() - s.admitted_at
        self.counters.restored_tokens += s.computed
        s.phase = Phase.PREFILL

    def _prefill(self, uid: int, num_tokens: int) -> None:
        s = self._sequences[uid]
        if s.phase is Phase.WAITING:
            self._admit(uid, s)
        started = self._now()
        stop = s.computed + num_tokens
        tokens = mx.array(s.job.tokens[s.computed : stop], dtype=mx.uint32)[None]
        logits = self._model(tokens, cache=s.cache)
        states = [c.state for c in s.cache]
        if stop in s.marks:
            s.snapshots.append(take(s.cache, stop))
            states += s.snapshots[-1].arrays()
        s.computed = stop
        s.planned = self.counters.steps
        self.counters.prefill_chunks += 1
        self.counters.prefill_tokens += num_tokens
        if stop < len(s.job.tokens):
            mx.eval(states)
        elif not s.job.max_tokens:
            mx.eval(states)
            self._encode(uid, s, 0)
        else:
            first = s.draw.first(logits[:, -1, :])
            mx.eval(first, states)
            self._first_token(uid, s, cast("int", first.item()))
        if num_tokens >= GRAIN:  # a chunk cut short at a boundary says nothing about speed
            self._pace.prefilled(num_tokens, self._now() - started)

    def _first_token(self, uid: int, s: StageSequence, token: int) -> None:
        s.first_at = s.last_at = self._now()
        s.emitted = 1
        s.first_token = token
        self._emit(uid, JobTokens((token,), s.draw.told()))
        if token in s.job.stop_tokens:
            self._end(uid, s, "stop")
        elif s.job.max_tokens == 1:
            self._end(uid, s, "length")
        else:
            s.phase = Phase.DECODE  # it joins the batch in the next step: the token goes out first

    def _join(self, uid: int, s: StageSequence) -> None:
        if not s.in_batch:
            self._batch.join(uid, s.job, s.first_token, s.cache, s.draw)
            s.cache = []
            s.in_batch = True

    def _decode(self, todo: StepPlan) -> None:
        started = self._now()
        rows = self._batch.step()
        ended = self._now()
        if todo.prefill is None:
            self._pace.decoded(ended - started)
        if self._last_decode is not None:
            self.counters.max_decode_gap_s = max(
                self.counters.max_decode_gap_s, ended - self._last_decode
            )
        self._last_decode = ended
        self.counters.decode_steps += 1
        self.counters.decode_rows += len(rows)
        for row in rows:
            self._apply(row, ended)
        if not len(self._batch):
            self._last_decode = None

    def _apply(self, row: Row, now: float) -> None:
        s = self._sequences[row.uid]
        s.emitted += 1
        s.last_at = now
        self._emit(row.uid, JobTokens((row.token,), s.draw.told()))
        if row.reason is not None and row.cache is not None:
            s.cache, s.kept = row.cache, s.emitted
            s.in_batch = False
            self._end(row.uid, s, row.reason)

    def _end(self, uid: int, s: StageSequence, reason: FinishReason) -> None:
        s.phase = Phase.ENDED
        self._emit(uid, JobEnded(reason=reason))

    def _encode(self, uid: int, s: StageSequence, keep: int) -> None:
        """Encode what is new, cut at its boundaries, and let go of the floats."""
        if s.kept and self._spec.forgetful:
            s.snapshots.append(take(s.cache, len(s.job.tokens) + s.kept))
        cuts = sorted({s.job.encode_from, *s.job.boundaries, len(s.job.tokens) + keep})
        segments = tuple(
            Encoded(a, b, encode(self._codec, self._spec, slice_states(s.cache, a, b, s.snapshots)))
            for a, b in itertools.pairwise(cuts)
        )
        del self._sequences[uid]
        times = JobTimes(s.admitted_at, s.restore_s, s.first_at, s.last_at)
        self._emit(uid, JobDone(segments=segments, times=times))
        if self._limits.resident_bytes and can_be_resident(s.cache):
            self._resident.put(uid, s.cache, s.resumed, _pending(s, segments))


def _pending(s: StageSequence, segments: tuple[Encoded, ...]) -> list[Span]:
    """What follows the resumed rows of a sequence once it is encoded."""
    spans: list[Span] = []
    at = 0
    for piece in s.job.pieces:
        first = max(0, s.resumed - at)
        if first < piece.used:
            spans.append(Span(piece.payload, first, piece.used - first))
        at += piece.used
    return [*spans, *(Span(e.payload, 0, e.stop - e.start) for e in segments)]
