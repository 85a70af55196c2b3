"""The way onto the stage and off it: memory for a sequence's floats, and where they come from."""

from collections.abc import Collection, Sequence
from concurrent.futures import Executor

import msgspec
from mlx_lm.models.cache import trim_prompt_cache

from greenroom.runtime.admission import Backing, Decision, Holdings, Ledger, Verdict, admit
from greenroom.runtime.cache import reserve
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.errors import NoMemory, TooLargeForMemory
from greenroom.runtime.host import release_memory
from greenroom.runtime.job import Emit, Encoded, HotWanted, JobRefused, JobWaits
from greenroom.runtime.limits import StageLimits
from greenroom.runtime.plan import Lane, Phase
from greenroom.runtime.resident import HEADROOM, Part, ResidentCaches, Span, can_be_resident
from greenroom.runtime.restore import restore
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.spec import CacheSpec

NEAR = 1024
"""Tokens of memory that can be decoded while others wait: on a CPU in a fifth of a second."""
NOBODY = -1
"""The uid of events that are about no job."""


class Entrance:
    """Lets sequences in and out: claims for their floats, and the decoded copies they start from.

    On the MLX thread. ``limits.memory_bytes`` is the limit for all that ``Holdings`` names,
    ``resident_bytes`` that for decoded copies.
    """

    def __init__(
        self,
        spec: CacheSpec,
        limits: StageLimits,
        emit: Emit,
        counters: StageCounters,
        pool: Executor | None,
    ) -> None:
        self._spec = spec
        self._emit = emit
        self._counters = counters
        self._pool = pool
        limit = limits.memory_bytes
        self._ledger = Ledger(spec.float_bytes_per_token, spec.float_bytes_fixed, limit)
        self._most_resident = min(limits.resident_bytes, limit)
        self._resident = ResidentCaches(spec, self._most_resident, pool)
        self._shut: set[Lane] = set()  # whose next sequence waits for memory

    @property
    def unsettled(self) -> bool:
        """Whether a resident copy is waiting to be brought into form."""
        return self._resident.unsettled

    @property
    def holdings(self) -> Holdings:
        """What is held now."""
        return self._ledger.holdings(self._resident.num_bytes)

    def waits(self, s: StageSequence) -> bool:
        """Whether a sequence waits for memory, or behind one that does.

        Nobody overtakes within a lane: a large prompt would starve.
        """
        return s.phase is Phase.WAITING and s.lane in self._shut

    def is_near(self, s: StageSequence) -> bool:
        """Whether a sequence is on stage, or can be soon: by a copy, or with little to decode."""
        begun = s.phase is not Phase.WAITING
        return begun or s.resumed <= NEAR or self._resident.size(s.job.handle) > 0

    def lacks(self, uid: int, num_tokens: int, handle: int | None = None) -> bool:
        """Whether room for so many tokens is not free, unless others give something up.

        The copy of ``handle`` is the sequence's own.
        """
        free = self.holdings.free + self._resident.size(handle)
        return self._ledger.needed(uid, num_tokens) > free

    def grow(self, uid: int, num_tokens: int) -> bool:
        """Claim room for so many tokens, if it is free."""
        if self.lacks(uid, num_tokens):
            return False
        self._ledger.claim(uid, max(num_tokens, self._ledger.claimed(uid)))
        return True

    def admit(self, uid: int, s: StageSequence) -> Verdict:
        """Claim memory for a sequence that is to get its first chunk; others have theirs.

        Decoded copies may go for it. With ``NEVER`` the job has been told that it is refused.
        """
        if s.phase is not Phase.WAITING:
            return Verdict.NOW
        own = self._resident.size(s.job.handle)
        held = self.holdings
        held = msgspec.structs.replace(held, resident=held.resident - own)
        alone = self._ledger.alone(room(s))
        decision = admit(self._ledger.needed(uid, room(s)), alone, held)
        self._free(uid, decision, s.job.handle)
        match decision.verdict:
            case Verdict.NOW:
                self._ledger.claim(uid, room(s))
            case Verdict.NEVER:
                self._refuse(uid, TooLargeForMemory(alone, held.limit))
            case Verdict.LATER:
                self._shut.add(s.lane)
                if not s.in_need:
                    s.in_need = True
                    self._counters.short_of_memory += 1
                    self._emit(uid, JobWaits(alone, held.free, held.limit))
        return decision.verdict

    def refuse(self, uid: int, s: StageSequence, retry_after_s: float) -> bool:
        """Give up on a job, if it waits for memory."""
        if not s.in_need or s.phase is not Phase.WAITING:
            return False
        held, alone = self.holdings, self._ledger.alone(room(s))
        self._refuse(uid, NoMemory(alone, held.free, held.limit, retry_after_s=retry_after_s))
        self._shut.clear()
        return True

    def enter(self, s: StageSequence) -> bool:
        """Give the sequence its caches; whether they are those of a resident copy."""
        s.cache = self._resident.take(s.job.handle) or []
        # A rehearsal that began with the copy may have brought back less of it.
        if s.cache and s.cache[0].offset >= s.computed:
            trim_prompt_cache(s.cache, s.cache[0].offset - s.computed)
            reserve(s.cache, s.headroom)
            return True
        spans = [Span(payload, 0, rows) for payload, rows in s.pieces()]
        s.cache = self._resident.borrow(s.parts, spans) or []
        if s.cache:
            return True
        s.cache = restore(self._spec, s.pieces(), s.headroom, self._pool)
        return False

    def has_room(self, uid: int, num_tokens: int) -> bool:
        """Whether there is memory for one more token after ``num_tokens``; claims what it needs.

        Hot segments that can go count as free.
        """
        if num_tokens < self._ledger.claimed(uid):
            return True
        needed = self._ledger.needed(uid, num_tokens + 1)
        decision = admit(needed, self._ledger.alone(num_tokens + 1), self.holdings)
        self._free(uid, decision, None)
        if decision.verdict is not Verdict.NEVER and needed <= (
            self.holdings.free + decision.drop_hot
        ):
            self._ledger.claim(uid, num_tokens + 1)
            return True
        self._counters.cut_short += 1
        return False

    def release(self, uid: int) -> None:
        """The sequence is gone, and its floats with it. Unknown ones are ignored."""
        self._ledger.release(uid)
        self._shut.clear()

    def keep(self, uid: int, s: StageSequence, segments: Sequence[Encoded]) -> None:
        """The sequence is over: its floats become a decoded copy if there is room for one."""
        self.release(uid)
        if segments and not s.stale and self._most_resident and can_be_resident(s.cache):
            parts = [Part(piece.key, piece.used) for piece in s.job.pieces]
            parts += [Part("", each.stop - each.start) for each in segments]
            self._resident.put(uid, s.cache, s.resumed, s.following(segments), parts)
            self._fit()

    def give_back(self, s: StageSequence) -> None:
        """What was computed of a sequence is of no use; the decoded copy that it began with is."""
        if s.job.handle is not None and s.resumed and not s.stale and can_be_resident(s.cache):
            self._resident.put(s.job.handle, s.cache, s.resumed, (), s.parts)
            self._fit()

    def name(self, uid: int, keys: Sequence[str]) -> None:
        """What a job has brought has these ids: its copy may serve others with the same past."""
        self._resident.name(uid, keys)

    def discard(self, keys: Collection[str]) -> None:
        """The bytes of these segments are gone, and with them every decoded copy."""
        self._resident.discard(keys)

    def settle(self) -> None:
        """Bring one resident copy into the form in which it is taken."""
        self._resident.settle()
        self._fit()

    def back(self, backing: Backing) -> None:
        """What is beside the stage from now on."""
        self._ledger.hot, self._ledger.pending = backing.hot, backing.pending
        self._resident.limit(min(backing.copies, self._most_resident))
        self._fit()
        if excess := min(backing.hot, max(0, -self.holdings.free)):
            self._emit(NOBODY, HotWanted(excess))
        self._shut.clear()

    def _fit(self) -> None:
        over = -self.holdings.free
        if over > 0:
            self._resident.shrink(max(0, self._resident.num_bytes - over))

    def _free(self, uid: int, decision: Decision, spare: int | None) -> None:
        if decision.drop_resident:
            self._resident.shrink(self._resident.num_bytes - decision.drop_resident, spare)
            release_memory()  # what was freed must not stay in MLX's own cache of buffers
        if decision.drop_hot:
            self._emit(uid, HotWanted(decision.drop_hot))

    def _refuse(self, uid: int, error: NoMemory | TooLargeForMemory) -> None:
        self._counters.refused += 1
        self._emit(uid, JobRefused(error))


def room(s: StageSequence) -> int:
    """Tokens that a sequence needs room for from the start: its prompt, and some of its answer."""
    return len(s.job.tokens) + min(s.job.max_tokens, HEADROOM)
