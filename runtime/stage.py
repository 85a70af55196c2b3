"""The stage: the sequences that the model works on now. Lives on the thread that owns MLX."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Any

import mlx.nn as nn

from greenroom.runtime.admission import Backing
from greenroom.runtime.batch import DecodeBatch, Row
from greenroom.runtime.codec import Codec
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.entrance import Entrance
from greenroom.runtime.head import OutputHead
from greenroom.runtime.job import Emit, Job, JobDone, JobEnded, JobTokens
from greenroom.runtime.lanes import Lanes
from greenroom.runtime.limits import StageLimits
from greenroom.runtime.pace import Pace
from greenroom.runtime.plan import WELCOME, Lane, Phase
from greenroom.runtime.planner import Planner
from greenroom.runtime.prompts import Prompts
from greenroom.runtime.reading import Reading, reads
from greenroom.runtime.records import FinishReason
from greenroom.runtime.rehearsals import Rehearsals
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.sharing import Sharing
from greenroom.runtime.spec import CacheSpec


class Stage:
    """Interleaved chunked prefill and batched decode: plan, run, apply.

    Every method is called on the thread that owns MLX. ``emit`` gets each job's events in order:
    ``JobStarted``, ``JobTokens`` …, ``JobEnded`` (unless ``finish`` came first), and ``JobDone``
    once ``finish`` was called; nothing after a ``cancel``. A job that generates nothing has only
    the first and the last of these, a rehearsal that has not begun only the last. Before all of
    them may come ``JobWaits``, and ``JobRefused`` instead of them. ``pool`` helps to encode and
    decode segments; ``flush`` is called when tokens have been emitted that should not wait for the
    rest of a step. Prefill chunks run over ``lanes``, which are warmed up here.
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
        flush: Callable[[], object] = lambda: None,
        lanes: Lanes | None = None,
    ) -> None:
        self._spec = spec
        self._codec = codec
        self._limits = limits
        self._emit = emit
        self._pool = pool
        self._now = now
        self._flush = flush
        lanes = lanes or Lanes()
        self._head = OutputHead(model, lanes.warm_up(model))
        self._sequences: dict[int, StageSequence] = {}
        self._batch = DecodeBatch(model)
        self._reading = Reading(self._sequences, self._batch)
        self._pace = Pace()
        self._order = 0
        self.counters = StageCounters()
        self._entrance = Entrance(spec, limits, emit, self.counters, pool)
        self._sharing = Sharing(spec, self._sequences, self._batch, limits.grid)
        self._rehearsals = Rehearsals(
            self._sequences, self._batch, self._entrance, emit, self._gone
        )
        self._prompts = Prompts(
            model,
            lanes,
            self._head,
            self._entrance,
            self._sharing,
            self._rehearsals,
            self.counters,
            self._pace,
            emit,
            now,
        )
        self._planner = Planner(
            self._sequences,
            limits,
            self._pace,
            self._entrance,
            self._sharing,
            self._rehearsals,
            self._gone,
            now,
        )

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return self._planner.idle and not self._entrance.unsettled

    def caches(self, uid: int) -> list[Any]:
        """The live caches of a job that is being prefilled, to look at."""
        return self._sequences[uid].cache

    def count(self) -> StageCounters:
        """The counters as of now, in a copy."""
        counters = self.counters.copied()
        phases = [s.phase for s in self._sequences.values()]
        counters.waiting = phases.count(Phase.WAITING)
        counters.running = len(phases) - counters.waiting
        counters.memory = self._entrance.holdings
        return counters

    def submit(self, uid: int, job: Job) -> None:
        """Queue a job; it starts when there is room on stage and in memory."""
        sequence = StageSequence(job, self._spec, self._head, self._order, self._now())
        sequence.planned = self.counters.steps - WELCOME
        self._sequences[uid] = sequence
        self._order += 1
        self.counters.jobs += 1

    def extend(self, uid: int, tokens: Sequence[int]) -> None:
        """Give more tokens to a rehearsal; one that is over is ignored."""
        if self._rehearsals.extend(uid, tokens):
            self._sharing.forget(self._sequences[uid])

    def back(self, backing: Backing) -> None:
        """What memories beside the stage take from now on."""
        self._entrance.back(backing)

    def name(self, uid: int, keys: Sequence[str]) -> None:
        """The segments of a job that is done have these ids, in order."""
        self._entrance.name(uid, keys)

    def discard(self, keys: Collection[str]) -> None:
        """The bytes of these segments are gone: keep nothing decoded of them, not later either."""
        self._entrance.discard(keys)
        for s in self._sequences.values():
            s.stale |= any(piece.key in keys for piece in s.job.pieces)

    def cancel(self, uid: int) -> None:
        """Take a job off the stage at once and forget it; unknown and finished jobs are ignored."""
        if uid not in self._sequences:
            return
        if self._sequences[uid].job.open:
            self._rehearsals.end(uid)
            return
        self.counters.cancelled += 1
        if self._gone(uid).in_batch:
            self._batch.drop([uid])
        self._entrance.release(uid)

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

    def refuse(self, uid: int, retry_after_s: float) -> None:
        """Give up on a job that still waits for memory; any other is ignored."""
        s = self._sequences.get(uid)
        if s is not None and self._entrance.refuse(uid, s, retry_after_s):
            self._gone(uid)

    def promote(self, uid: int) -> None:
        """Somebody waits for this job now: it leaves the background. Unknown ones are ignored."""
        if (sequence := self._sequences.get(uid)) is not None:
            sequence.lane = Lane.FOREGROUND
            if reads(sequence):
                self._reading.leave(uid)

    def step(self) -> None:
        """One step: a token for everybody in the batch, and at most one prefill chunk.

        The chunk comes last, so that a first token goes out as soon as it is there. Only a step
        with nothing better to do works on the resident copy that a finished turn has left.
        """
        todo = self._planner.next()
        if self._reading.leave_all_but(todo.read):
            self._pace.disturbed()
        if not any(self._sequences[uid].in_batch for uid in todo.decode):
            self._join(todo.decode)
        if todo.decode:
            self._decode()
        self._join(todo.decode)  # last: who is there need not wait for a newcomer's first step
        self._read(todo.read)
        if todo.prefill is not None:
            self._prefill(*todo.prefill, beside=bool(todo.decode))
        elif not todo.decode and self._entrance.unsettled:
            self._entrance.settle()
        elif todo.background is not None:
            self.counters.background_chunks += 1
            self._prefill(*todo.background, beside=bool(todo.decode))
        self.counters.steps += 1

    def _prefill(self, uid: int, num_tokens: int, *, beside: bool = False) -> None:
        s = self._sequences[uid]
        token = self._prompts.advance(uid, s, num_tokens, beside=beside)
        if token is not None:
            self._first_token(uid, s, token)
        elif s.computed == len(s.job.tokens) and not s.job.open:
            self._encode(uid, s, 0)

    def _first_token(self, uid: int, s: StageSequence, token: int) -> None:
        s.first_at = s.last_at = self._now()
        s.emitted = 1
        s.first_token = token
        self._emit(uid, JobTokens((token,), s.draw.told()))
        self.counters.ttft_s.add(s.first_at - s.submitted_at)
        if token in s.job.stop_tokens:
            self._end(uid, s, "stop")
        elif s.job.max_tokens == 1:
            self._end(uid, s, "length")
        else:
            s.phase = Phase.DECODE  # it joins the batch in the next step: the token goes out first

    def _join(self, uids: Sequence[int]) -> None:
        """Take those of them that are not in it yet into the batch."""
        for uid in uids:
            s = self._sequences[uid]
            if s.phase is Phase.DECODE and not s.in_batch:
                self._batch.join(uid, s.job, s.first_token, s.cache, s.draw)
                s.cache = []
                s.in_batch = True
                self._pace.disturbed()

    def _read(self, uids: Sequence[int]) -> None:
        """Have those of them that do not yet read along with the next decode step."""
        for uid in uids:
            s = self._sequences.get(uid)  # None: it has read all there is in this step
            if s is None or s.in_batch or not len(self._batch):
                continue
            if s.phase is Phase.WAITING:
                self._prompts.enter(uid, s)
            self._reading.join(uid)
            self._pace.disturbed()

    def _decode(self) -> None:
        started = self._now()
        rows = self._batch.step()
        ended = self._now()
        self._pace.decoded(ended - started, len(rows))
        reading = [row.uid for row in rows if reads(self._sequences[row.uid])]
        self.counters.decoded(len(rows) - len(reading), ended - started)
        for row in rows:
            if row.uid not in reading:
                self._apply(row, ended)
        self._flush()
        for uid in reading:
            self._has_read(uid)

    def _has_read(self, uid: int) -> None:
        """A row has been given one token more; where it knows no other it leaves at once."""
        self.counters.read_tokens += 1
        if self._reading.advance(uid):
            self._pace.disturbed()
            s = self._sequences[uid]
            if s.computed == len(s.job.tokens) and not s.job.open:
                self._encode(uid, s, 0)

    def _apply(self, row: Row, now: float) -> None:
        s = self._sequences[row.uid]
        self.counters.gapped(s.gapped(now))
        self._emit(row.uid, JobTokens((row.token,), s.draw.told()))
        if row.reason is not None and row.cache is not None:
            s.cache, s.kept = row.cache, s.emitted
            s.in_batch = False
            self._end(row.uid, s, row.reason)
        elif not self._has_room(row.uid, len(s.job.tokens) + s.emitted):
            s.cache, s.kept = self._batch.leave(row.uid), s.emitted
            s.in_batch = False
            self._end(row.uid, s, "length", out_of_memory=True)

    def _has_room(self, uid: int, num_tokens: int) -> bool:
        """Whether there is memory for one more token after so many."""
        self._rehearsals.make_room(uid, num_tokens + 1)
        return self._entrance.has_room(uid, num_tokens)

    def _end(
        self, uid: int, s: StageSequence, reason: FinishReason, *, out_of_memory: bool = False
    ) -> None:
        s.phase = Phase.ENDED
        self._emit(uid, JobEnded(reason, out_of_memory))

    def _encode(self, uid: int, s: StageSequence, keep: int) -> None:
        """Encode what is new, and let go of the floats."""
        segments = s.encoded(self._codec, self._spec, keep, self._pool)
        self._gone(uid)
        self._emit(uid, JobDone(segments=segments, times=s.times))
        self._entrance.keep(uid, s, segments)

    def _gone(self, uid: int) -> StageSequence:
        sequence = self._sequences.pop(uid)
        self._sharing.forget(sequence)
        return sequence
