"""One computation for prompts that begin alike while the first of them is still on stage.

What is remembered is shared through segments; those of a turn come into being when it ends. Until
then whoever brings the same beginning waits for the one who computes it already, and starts from
a copy of its floats: the same that it would have computed itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from mlx_lm.models.cache import trim_prompt_cache

from greenroom.runtime.batch import DecodeBatch
from greenroom.runtime.cache import branch, reserve
from greenroom.runtime.plan import Lane, Phase
from greenroom.runtime.prefix import common_prefix
from greenroom.runtime.resident import can_be_resident
from greenroom.runtime.segments import TOKEN_BYTES, pack_tokens
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.spec import CacheSpec

WORTH = 16
"""Tokens that must be saved: for fewer nobody waits."""


class Source(msgspec.Struct, frozen=True):
    """The first ``position`` tokens of the sequence ``uid``, which has them or is to have them."""

    uid: int
    position: int


class Sharing:
    """Who waits for whom, and copies of what was waited for. On the MLX thread.

    ``sequences`` are all that the stage knows, ``batch`` holds the caches of those that decode.
    Only sequences of one ``scope`` share; a sequence waits only for one that came before it, and
    looks anew at every step, so that nobody waits for what is cancelled. With ``grid``, the chunk
    size of the fixed schedule, it goes on where it would have begun a chunk by itself.
    """

    def __init__(
        self,
        spec: CacheSpec,
        sequences: Mapping[int, StageSequence],
        batch: DecodeBatch,
        grid: int | None,
    ) -> None:
        self._spec = spec
        self._sequences = sequences
        self._batch = batch
        self._grid = grid
        self._common: dict[tuple[int, int], int] = {}  # by the two's orders

    def waits(self, s: StageSequence) -> bool:
        """Whether a sequence had better wait for what another is about to compute."""
        if s.phase is not Phase.WAITING:
            return False
        source = self.source(s)
        return source is not None and self._sequences[source.uid].computed < source.position

    def source(self, s: StageSequence) -> Source | None:
        """Where a sequence that has not begun may take the most from; None: from nobody.

        From its own rehearsal it takes anything, and be it the decoded copy that began it.
        """
        found: Source | None = None
        for uid, other in self._sequences.items():
            if self._may_give(other, s):
                own = uid == s.job.rehearsal
                if own and other.phase is Phase.WAITING:
                    continue
                position = self._position(other, s, own=own)
                least = s.computed if own else s.computed + WORTH
                if position >= least and (found is None or position > found.position):
                    found = Source(uid, position)
        return found

    def enter(self, s: StageSequence, source: Source) -> None:
        """Give the sequence copies of the source's caches, up to where they are of use to it, or
        the caches themselves if it is its rehearsal."""
        other = self._sequences[source.uid]
        s.snapshots = [h for h in other.snapshots if h.position <= source.position]
        if source.uid == s.job.rehearsal:
            s.cache = self._taken_over(source, s.headroom)
            return
        caches = self._batch.copies(source.uid) if other.in_batch else other.cache
        held = next((h for h in other.snapshots if h.position >= source.position), None)
        s.cache = branch(self._spec, caches, held, source.position, s.headroom)

    def _taken_over(self, source: Source, headroom: int) -> list[Any]:
        other = self._sequences[source.uid]
        if other.in_batch:
            other.cache, other.in_batch = self._batch.rest(source.uid, headroom), False
        caches, other.cache = other.cache, []
        if other.computed > source.position:
            trim_prompt_cache(caches, other.computed - source.position)
        if can_be_resident(caches):
            reserve(caches, headroom)
        return caches

    def forget(self, s: StageSequence) -> None:
        """The sequence is gone, or it has got other tokens."""
        self._common = {pair: n for pair, n in self._common.items() if s.order not in pair}

    def _may_give(self, other: StageSequence, s: StageSequence) -> bool:
        return (
            other.order < s.order
            and not other.stale
            and other.job.scope == s.job.scope is not None
            and other.resumed == s.resumed
            and other.parts == s.parts  # what is decoded of other segments is not the same
            # One that encodes nothing, as a second answer to a prompt, may take from anybody.
            and s.job.encode_from in (other.job.encode_from, len(s.job.tokens))
        )

    def _position(self, other: StageSequence, s: StageSequence, *, own: bool) -> int:
        """Up to where ``s`` may take what ``other`` computes; -1: not at all.

        Of a rehearsal it takes what there is. Nobody in the foreground waits for the background,
        which may be long in coming.
        """
        most = min(self._shared(other, s), len(s.job.tokens) - 1)
        behind = other.lane is Lane.BACKGROUND and s.lane is Lane.FOREGROUND
        ready = own or behind or other.job.open
        if ready:
            most = min(most, other.computed)
        if self._spec.forgetful:
            ends = _kept(other.marks, stateful=self._spec.stateful)
            if ready:
                last = max((h.position for h in other.snapshots), default=0)
                ends = [p for p in ends if p <= last]
            if own:
                ends = [*ends, other.computed]
            return max((p for p in ends if p <= most and _same(other, s, p)), default=-1)
        if self._grid is None:
            return most
        ends = _grid(other, self._grid)
        return max((p for p in ends if p <= most), default=-1)

    def _shared(self, other: StageSequence, s: StageSequence) -> int:
        pair = (other.order, s.order)
        if pair not in self._common:
            one, two = pack_tokens(other.job.tokens), pack_tokens(s.job.tokens)
            self._common[pair] = common_prefix(one, two) // TOKEN_BYTES
        return self._common[pair]


def _kept(marks: Sequence[int], *, stateful: bool) -> Sequence[int]:
    """Where layers that forget can be taken up: where they were looked at, and in a window one
    token before, since the next token does not see the oldest row."""
    return marks if stateful else [*marks, *(mark - 1 for mark in marks)]


def _same(other: StageSequence, s: StageSequence, position: int) -> bool:
    """Whether ``other`` looks at its layers wherever ``s`` has to, up to there."""
    return {mark for mark in s.marks if mark <= position} <= set(other.marks)


def _grid(s: StageSequence, chunk_tokens: int) -> Sequence[int]:
    """Where chunks begin, and the end, unless more is to come."""
    end = [] if s.job.open else [len(s.job.tokens)]
    return [*range(s.resumed, len(s.job.tokens) + s.job.open, chunk_tokens), *end]
