"""The next step of a stage: planned for whoever is there, and has room in memory."""

from collections.abc import Callable, Mapping

from greenroom.runtime.admission import Verdict
from greenroom.runtime.entrance import Entrance, room
from greenroom.runtime.limits import StageLimits
from greenroom.runtime.pace import Pace
from greenroom.runtime.plan import Lane, Phase, SequenceView, StepPlan, due, plan
from greenroom.runtime.rehearsals import Rehearsals
from greenroom.runtime.sequence import StageSequence
from greenroom.runtime.sharing import Sharing


class Planner:
    """Shows ``plan`` who is present, and claims memory for whom it has chosen.

    On the MLX thread. Who is refused for good is told so and ``gone``.
    """

    def __init__(
        self,
        sequences: Mapping[int, StageSequence],
        limits: StageLimits,
        pace: Pace,
        entrance: Entrance,
        sharing: Sharing,
        rehearsals: Rehearsals,
        gone: Callable[[int], object],
        now: Callable[[], float],
    ) -> None:
        self._sequences = sequences
        self._limits = limits
        self._pace = pace
        self._entrance = entrance
        self._sharing = sharing
        self._rehearsals = rehearsals
        self._gone = gone
        self._now = now
        self._busy_at = now()  # when a step with something in the foreground began

    @property
    def idle(self) -> bool:
        """Whether nobody has anything to do that can be done."""
        return all(
            s.phase is Phase.ENDED
            or (s.job.open and not due(s.view(uid), self._limits.grid))
            or self._entrance.waits(s)
            or self._sharing.waits(s)
            for uid, s in self._sequences.items()
        )

    def next(self) -> StepPlan:
        """A plan of which everybody has room in memory."""
        now = self._now()
        while True:
            todo = plan(self._present(), self._limits.budget(self._pace, now - self._busy_at))
            chunk = todo.prefill or todo.background
            if all(self._admit(uid) for uid in (*todo.read, *([chunk[0]] if chunk else []))):
                if todo.prefill or todo.decode:
                    self._busy_at = now
                return todo

    def _admit(self, uid: int) -> bool:
        """Whether a sequence that is to be computed has memory for it."""
        s = self._sequences[uid]
        if s.job.open:
            return self._rehearsals.admit(uid) and self._entrance.admit(uid, s) is Verdict.NOW
        if s.phase is Phase.WAITING:
            self._rehearsals.make_room(uid, room(s), s.job.handle)
        verdict = self._entrance.admit(uid, s)
        if verdict is Verdict.NEVER:
            self._gone(uid)
        return verdict is Verdict.NOW

    def _present(self) -> list[SequenceView]:
        """Everybody who waits neither for memory nor for what another is computing."""
        present = [(u, s) for u, s in self._sequences.items() if not self._entrance.waits(s)]
        front = [s.phase for _, s in present if s.lane is Lane.FOREGROUND]
        busy = front.count(Phase.PREFILL) + front.count(Phase.DECODE)
        # On a full stage nobody begins in this step, unless to read.
        lanes = Lane if busy < self._limits.max_batch_size else (Lane.BACKGROUND,)
        present = [(u, s) for u, s in present if s.lane not in lanes or not self._sharing.waits(s)]
        return [s.view(uid, near=self._entrance.is_near(s)) for uid, s in present]
