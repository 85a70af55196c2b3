"""Reading along: what is only heard, as rows of the others' decode steps.

A forward pass cannot be interrupted, and one of another row costs a decode step little: its time is
that of the weights. So whoever only hears is given one token in every step that others decode in,
and holds nobody up but when it joins and leaves.
"""

from collections.abc import Callable, Collection, Mapping

from greenroom.runtime.batch import DecodeBatch
from greenroom.runtime.plan import Phase
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.snapshot import take


class Reading:
    """Rows of ``batch`` that read, of the sequences that the stage knows. On the MLX thread."""

    def __init__(self, sequences: Mapping[int, StageSequence], batch: DecodeBatch) -> None:
        self._sequences = sequences
        self._batch = batch

    def join(self, uid: int) -> None:
        """From the next decode step on a sequence reads along, up to its next mark at most."""
        s = self._sequences[uid]
        cache, s.cache = s.cache, []
        self._batch.read(uid, _following(s), cache)
        s.in_batch = True

    def advance(self, uid: int) -> bool:
        """A decode step has given a row one token more; whether it has left.

        It does so where its caches must be looked at, and where it knows no other token.
        """
        s = self._sequences[uid]
        s.computed += 1
        if s.computed not in s.marks and s.computed < len(s.job.tokens):
            return False
        self.leave(uid)
        if s.computed in s.marks:
            s.snapshots.append(take(s.cache, s.computed))
        return True

    def leave(self, uid: int) -> None:
        """The sequence has its cache back, with exactly the tokens that are ``computed``."""
        s = self._sequences[uid]
        s.cache = self._batch.rest(uid, s.headroom)
        s.in_batch = False

    def leave_all_but(self, staying: Collection[int]) -> bool:
        """Others need the rows; whether anybody has left."""
        leaving = [u for u, s in self._sequences.items() if reads(s) and u not in staying]
        for uid in leaving:
            self.leave(uid)
        return bool(leaving)


def reads(s: StageSequence) -> bool:
    """Whether a sequence is such a row."""
    return s.in_batch and s.phase is Phase.PREFILL


def _following(s: StageSequence) -> Callable[[], int]:
    """Gives the tokens from the first that is not computed yet, one by one.

    Behind the last known one it gives any: the row leaves before that is read.
    """
    at = s.computed - 1

    def following() -> int:
        nonlocal at
        at += 1
        return s.job.tokens[at] if at < len(s.job.tokens) else 0

    return following
