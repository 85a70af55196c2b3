"""What the stage has done so far: plain numbers, cheap to count on the thread that owns MLX."""

from bisect import bisect_left
from collections.abc import Sequence
from copy import deepcopy
from functools import partial

import msgspec

from greenroom.runtime.admission import Holdings

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TOKENS = (1, 16, 32, 64, 128, 256, 512, 1024, 2048)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Histogram(msgspec.Struct):
    """How many values were at most each of ``bounds`` and above the bound before.

    ``counts`` has one entry more than there are bounds, for what exceeds all; ``total`` is the
    sum of the values. Prometheus' buckets are the running sums of ``counts``.
    """

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def num(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The values' mean, 0 before the first."""
        return self.total / self.num if self.num else 0.0

    def quantile(self, share: float) -> float:
        """The smallest bound that at least ``share`` of the values do not exceed.

        0 before the first value, infinity when that many exceed all bounds.
        """
        wanted, seen = share * self.num, 0
        if not wanted:
            return 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            seen += count
            if seen >= wanted:
                return bound
        return float("inf")


def histogram(bounds: Sequence[float]) -> Histogram:
    """An empty one; ``bounds`` ascend."""
    return Histogram(tuple(bounds), [0] * (len(bounds) + 1))


class StageCounters(msgspec.Struct):
    """What the stage has done so far, and what is on it now; ``_s`` are seconds.

    Of every reply the seconds between two of its tokens are in ``gap_s``; of every job those
    until it was admitted in ``queue_s``, and of those that answer the ones until the first token
    in ``ttft_s``, both from when the stage got it. ``chunk_tokens`` has the size of every prefill
    chunk and ``batch_rows`` the rows of every decode step. ``shared_tokens`` were taken from
    others on stage that had just computed them; ``read_tokens`` were taken in by rows of decode
    steps that only read, which count neither as decoded nor as prefilled.

    ``waiting``, ``running`` and ``memory`` are as of now; ``short_of_memory`` counts the jobs that
    had to wait for memory, ``refused`` those that were told that there is none, ``cut_short`` the
    answers that ended because there was none left for their next token.
    """

    decode_steps: int = 0
    decode_rows: int = 0
    decode_s: float = 0.0
    prefill_chunks: int = 0
    prefill_tokens: int = 0
    prefill_s: float = 0.0
    read_tokens: int = 0
    background_chunks: int = 0
    restored_tokens: int = 0
    restore_s: float = 0.0
    resident_hits: int = 0
    shared_tokens: int = 0
    jobs: int = 0
    cancelled: int = 0
    short_of_memory: int = 0
    refused: int = 0
    cut_short: int = 0
    steps: int = 0
    max_decode_gap_s: float = 0.0
    gap_s: Histogram = msgspec.field(default_factory=partial(histogram, SECONDS))
    queue_s: Histogram = msgspec.field(default_factory=partial(histogram, SECONDS))
    ttft_s: Histogram = msgspec.field(default_factory=partial(histogram, SECONDS))
    chunk_tokens: Histogram = msgspec.field(default_factory=partial(histogram, TOKENS))
    batch_rows: Histogram = msgspec.field(default_factory=partial(histogram, ROWS))
    waiting: int = 0
    running: int = 0
    memory: Holdings = Holdings(limit=0)

    @property
    def mean_batch(self) -> float:
        """Rows per decode step, 0 before the first."""
        return self.decode_rows / self.decode_steps if self.decode_steps else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens of all rows per second of decode steps, 0 before the first."""
        return self.decode_rows / self.decode_s if self.decode_s else 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second of prefill chunks, 0 before the first."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s else 0.0

    def decoded(self, rows: int, seconds: float) -> None:
        """Count one decode step."""
        self.decode_steps += 1
        self.decode_rows += rows
        self.decode_s += seconds
        self.batch_rows.add(rows)

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Count one chunk."""
        self.prefill_chunks += 1
        self.prefill_tokens += tokens
        self.prefill_s += seconds
        self.chunk_tokens.add(tokens)

    def restored(self, tokens: int, seconds: float, *, resident: bool) -> None:
        """Count a job's beginning: what of its prompt needs no forward pass."""
        self.restored_tokens += tokens
        self.restore_s += seconds
        self.resident_hits += resident

    def gapped(self, seconds: float) -> None:
        """Count the time between two tokens of one reply."""
        self.gap_s.add(seconds)
        self.max_decode_gap_s = max(self.max_decode_gap_s, seconds)

    def copied(self) -> "StageCounters":
        """A copy that does not change any more."""
        return deepcopy(self)
