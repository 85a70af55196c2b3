"""What a stage may do: the settings that shape its steps, and the budget of the next one."""

from typing import Literal

import msgspec

from greenroom.runtime.pace import Pace
from greenroom.runtime.plan import Budget, decode_gap_s

LEAST_BACKGROUND_S = 0.1
MOST_BACKGROUND_S = 0.5
"""Bounds of a background chunk: the longest that a newcomer waits for what nobody waits for."""


class StageLimits(msgspec.Struct, frozen=True):
    """The part of the settings that shapes a step: see ``Budget`` and ``Entrance``.

    ``max_decode_gap_s`` 0 leaves it to ``decode_gap_s``.
    """

    max_batch_size: int
    chunk_tokens: int
    schedule: Literal["adaptive", "fixed"]
    max_decode_gap_s: float
    resident_bytes: int
    memory_bytes: int
    max_rows: int = 0
    max_row_cost: float = 0.1

    @property
    def grid(self) -> int | None:
        """The size of every chunk but the last, where that is fixed."""
        return self.chunk_tokens if self.schedule == "fixed" else None

    def budget(self, pace: Pace, quiet_s: float) -> Budget:
        """The limits of a step at this pace, when the foreground has had nothing for ``quiet_s``.

        What is heard is computed in longer chunks, which are quicker, once traffic is not recent.
        """
        return Budget(
            max_batch_size=self.max_batch_size,
            chunk_tokens=self.chunk_tokens,
            schedule=self.schedule,
            max_decode_gap_s=decode_gap_s(self.max_decode_gap_s, pace.decode_step_s),
            cost=pace.cost,
            max_rows=self.max_rows,
            told_reads=pace.row_cost <= self.max_row_cost,
            max_background_s=min(MOST_BACKGROUND_S, max(LEAST_BACKGROUND_S, quiet_s / 10)),
        )
