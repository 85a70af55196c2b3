"""How fast this model prefills and decodes on this device, learned while it runs."""

import msgspec

WEIGHT = 0.3
"""Of the newest measurement; the rest stays with the past, so one hiccup does not halve a chunk."""


class Pace:
    """Moving averages of what steps cost; speeds fall with context, so they are never final."""

    def __init__(self) -> None:
        self.prefill_tokens_per_s = 256.0
        self.decode_step_s = 0.05
        self._known_prefill = False
        self._known_decode = False

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Learn from one chunk of ``tokens``."""
        speed = tokens / max(seconds, 1e-6)
        if self._known_prefill:
            speed = WEIGHT * speed + (1 - WEIGHT) * self.prefill_tokens_per_s
        self.prefill_tokens_per_s = speed
        self._known_prefill = True

    def decoded(self, seconds: float) -> None:
        """Learn from one decode step that no chunk disturbed."""
        if self._known_decode:
            seconds = WEIGHT * seconds + (1 - WEIGHT) * self.decode_step_s
        self.decode_step_s = seconds
        self._known_decode = True


class StageCounters(msgspec.Struct):
    """What the stage has done so far; ``decode_rows / decode_steps`` is the mean batch.

    ``num_jobs`` are on stage or wait for it, and ``resident_bytes`` are in decoded copies, now.
    """

    decode_steps: int = 0
    decode_rows: int = 0
    prefill_chunks: int = 0
    prefill_tokens: int = 0
    background_chunks: int = 0
    restored_tokens: int = 0
    resident_hits: int = 0
    jobs: int = 0
    cancelled: int = 0
    steps: int = 0
    max_decode_gap_s: float = 0.0
    num_jobs: int = 0
    resident_bytes: int = 0

    @property
    def mean_batch(self) -> float:
        """Rows per decode step, 0 before the first."""
        return self.decode_rows / self.decode_steps if self.decode_steps else 0.0
