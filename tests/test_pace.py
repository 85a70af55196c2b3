"""Learned speeds follow what is measured, and one hiccup does not overturn them."""

from greenroom.runtime.pace import Pace


def test_the_first_measurement_counts_whole_and_later_ones_in_part() -> None:
    pace = Pace()
    pace.prefilled(100, 1.0)
    assert pace.prefill_tokens_per_s == 100.0
    pace.prefilled(100, 10.0)
    assert 50.0 < pace.prefill_tokens_per_s < 100.0
    for _ in range(30):
        pace.prefilled(100, 10.0)
    assert abs(pace.prefill_tokens_per_s - 10.0) < 0.1


def test_decode_steps_are_learned_alike() -> None:
    pace = Pace()
    pace.decoded(0.2)
    assert pace.decode_step_s == 0.2
    pace.decoded(0.1)
    assert 0.1 < pace.decode_step_s < 0.2
