"""The stage's counters: sums that can be read at any time."""

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.counters import StageCounters, histogram


@given(
    st.lists(st.floats(0.0, 100.0), min_size=1, unique=True).map(sorted),
    st.lists(st.floats(0.0, 200.0)),
    st.floats(0.01, 1.0),
)
def test_a_histogram_bounds_every_quantile(
    bounds: list[float], values: list[float], share: float
) -> None:
    counted = histogram(bounds)
    for value in values:
        counted.add(value)
    assert counted.num == len(values)
    assert counted.mean * len(values) == sum(values) or abs(counted.total - sum(values)) < 1e-6
    below = [sum(counted.counts[: i + 1]) for i in range(len(bounds))]
    assert below == [sum(v <= b for v in values) for b in bounds]
    if values:
        exact = sorted(values)[max(0, -int(-share * len(values) // 1) - 1)]
        least = bisect_left(bounds, exact)
        bound = counted.quantile(share)
        assert bound == (bounds[least] if least < len(bounds) else float("inf"))
    else:
        assert counted.quantile(share) == 0.0


def test_means_and_rates_are_of_what_was_counted() -> None:
    counters = StageCounters()
    assert (counters.mean_batch, counters.decode_tokens_per_s) == (0.0, 0.0)
    counters.decoded(2, 0.5)
    counters.decoded(1, 0.25)
    counters.prefilled(300, 2.0)
    assert counters.mean_batch == 1.5
    assert counters.decode_tokens_per_s == 4.0
    assert counters.prefill_tokens_per_s == 150.0
    assert counters.batch_rows.num == 2
    assert counters.chunk_tokens.quantile(1.0) == 512


def test_a_copy_changes_no_more() -> None:
    counters = StageCounters()
    before = counters.copied()
    counters.gapped(0.3)
    assert (before.gap_s.num, before.max_decode_gap_s) == (0, 0.0)
    assert (counters.gap_s.num, counters.max_decode_gap_s) == (1, 0.3)
