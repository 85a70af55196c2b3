"""Computing prompts: the way onto the stage, chunk by chunk, up to the answer's first token."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from greenroom.runtime.counters import StageCounters
from greenroom.runtime.entrance import Entrance
from greenroom.runtime.head import OutputHead, kept
from greenroom.runtime.job import Emit, JobProgress, JobStarted
from greenroom.runtime.lanes import Lanes
from greenroom.runtime.pace import Pace
from greenroom.runtime.plan import Phase
from greenroom.runtime.rehearsals import Rehearsals
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.sharing import Sharing
from greenroom.runtime.snapshot import take


class Prompts:
    """Gives sequences their caches, and runs the model over their prompts. On the MLX thread.

    Chunks run over ``lanes``, and what the answer is sampled from is read off the ``head``.
    """

    def __init__(
        self,
        model: nn.Module,
        lanes: Lanes,
        head: OutputHead,
        entrance: Entrance,
        sharing: Sharing,
        rehearsals: Rehearsals,
        counters: StageCounters,
        pace: Pace,
        emit: Emit,
        now: Callable[[], float],
    ) -> None:
        self._model = model
        self._lanes = lanes
        self._head = head
        self._entrance = entrance
        self._sharing = sharing
        self._rehearsals = rehearsals
        self._counters = counters
        self._pace = pace
        self._emit = emit
        self._now = now

    def enter(self, uid: int, s: StageSequence) -> None:
        """Bring a sequence onto the stage, with all that is known of its prompt."""
        s.admitted_at = self._now()
        source = self._sharing.source(s)
        if source is not None:
            s.computed = source.position
        self._emit(uid, JobStarted(cached_tokens=s.computed))
        resident = False
        if source is not None:
            self._sharing.enter(s, source)
            self._counters.shared_tokens += source.position - s.resumed
        self._rehearsals.end(s.job.rehearsal)
        if source is None:
            resident = self._entrance.enter(s)
        s.restore_s = self._now() - s.admitted_at
        self._counters.queue_s.add(s.admitted_at - s.submitted_at)
        self._counters.restored(s.computed, s.restore_s, resident=resident)
        s.phase = Phase.PREFILL

    def advance(self, uid: int, s: StageSequence, num_tokens: int, *, beside: bool) -> int | None:
        """Compute so many tokens more; the answer's first where the prompt ends with them.

        ``beside``: in a step in which others decode. Of a prompt that has been answered, and is
        remembered whole, nothing is computed.
        """
        if s.phase is Phase.WAITING:
            self.enter(uid, s)
            num_tokens = min(num_tokens, s.view(uid).remaining)  # another may have had more
        s.planned = self._counters.steps
        if s.last_hidden is not None:
            first = s.draw.first(self._head.logits(s.last_hidden))
            return cast("int", first.item())
        started = self._now()
        stop = s.computed + num_tokens
        logits = self._lanes.forward(self._model, s.job.tokens[s.computed : stop], s.cache)
        hidden = self._head.taken()
        needed = [c.state for c in s.cache]
        if stop in s.marks:
            s.snapshots.append(take(s.cache, stop))
            needed += s.snapshots[-1].arrays()
        s.computed = stop
        if stop < len(s.job.tokens) or not s.job.max_tokens:
            mx.eval(needed)
            self._count(s, num_tokens, started, beside=beside)
            if s.job.max_tokens:
                self._emit(uid, JobProgress(stop))
            return None
        first = s.draw.first(logits[:, -1, :])
        mx.eval(first, needed, [] if hidden is None else hidden)
        s.last_hidden = None if hidden is None else kept(hidden)
        self._count(s, num_tokens, started, beside=beside)
        return cast("int", first.item())

    def _count(self, s: StageSequence, num_tokens: int, started: float, *, beside: bool) -> None:
        seconds = self._now() - started
        s.prefill_s += seconds
        self._counters.prefilled(num_tokens, seconds)
        self._pace.prefilled(num_tokens, s.computed - num_tokens, seconds, beside=beside)
