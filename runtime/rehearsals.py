"""Rehearsals: what somebody is about to hear in full, computed while it is still being said.

A rehearsal is a job that is ``open``: it is given tokens as they become known, and stays on stage
until the job comes that brings all of them, which takes its floats over. It changes nothing but the
time that this takes, and goes before anything else where memory is short.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from greenroom.runtime.batch import DecodeBatch
from greenroom.runtime.entrance import Entrance, room
from greenroom.runtime.job import Emit, JobDone
from greenroom.runtime.plan import Phase
from greenroom.runtime.sequence import StageSequence


class Rehearsals:
    """Those of the ``sequences`` on stage that are open. On the MLX thread.

    ``forget`` takes a sequence off the stage's list.
    """

    def __init__(
        self,
        sequences: Mapping[int, StageSequence],
        batch: DecodeBatch,
        entrance: Entrance,
        emit: Emit,
        forget: Callable[[int], object],
    ) -> None:
        self._sequences = sequences
        self._batch = batch
        self._entrance = entrance
        self._emit = emit
        self._forget = forget

    def extend(self, uid: int, tokens: Sequence[int]) -> bool:
        """Give a rehearsal more tokens; False if there is none or no memory for them."""
        s = self._sequences.get(uid)
        if s is None or not s.job.open:
            return False
        s.job = msgspec.structs.replace(s.job, tokens=(*s.job.tokens, *tokens))
        if s.phase is Phase.WAITING or self._entrance.grow(uid, len(s.job.tokens)):
            return True
        self.end(uid)
        return False

    def admit(self, uid: int) -> bool:
        """Whether one that has not begun may: only where nobody must give anything up for it."""
        s = self._sequences[uid]
        if s.phase is not Phase.WAITING or not self._entrance.lacks(uid, room(s), s.job.handle):
            return True
        self.end(uid)
        return False

    def make_room(self, uid: int, num_tokens: int, handle: int | None = None) -> None:
        """End rehearsals, the newest first, until a sequence has room for so many tokens."""
        open_ = [u for u, s in self._sequences.items() if s.job.open and u != uid]
        while open_ and self._entrance.lacks(uid, num_tokens, handle):
            self.end(open_.pop(), restore=False)

    def end(self, uid: int | None, *, restore: bool = True) -> None:
        """A rehearsal is over; unless not to be restored, what it began with is kept."""
        s = None if uid is None else self._sequences.get(uid)
        if uid is None or s is None or not s.job.open:
            return
        if s.in_batch:
            s.cache = self._batch.leave(uid)
        self._forget(uid)
        self._entrance.release(uid)
        if restore:
            self._entrance.give_back(s)
        self._emit(uid, JobDone(segments=(), times=s.times))
