"""Learned costs follow what is measured, and one hiccup does not overturn them."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.cost import ChunkCost
from greenroom.runtime.pace import ENOUGH, Pace

costs = st.builds(ChunkCost, st.floats(0.0, 0.5), st.floats(1e-6, 0.01), st.floats(0.0, 1e-5))


@given(costs, st.integers(0, 8192), st.integers(1, 2048), st.floats(0.0, 10.0))
def test_the_largest_chunk_that_fits_is_found(
    cost: ChunkCost, context: int, most: int, seconds: float
) -> None:
    tokens = cost.fitting(seconds, context, most)
    assert 0 <= tokens <= most
    slack = 1e-9 + 1e-9 * seconds
    assert not tokens or cost.seconds(tokens, context) <= seconds + slack
    assert tokens == most or cost.seconds(tokens + 1, context) >= seconds - slack


def test_what_costs_nothing_always_fits() -> None:
    assert ChunkCost(0.0, 0.0, 0.0).fitting(0.0, 0, 7) == 7


def measured(pace: Pace, cost: ChunkCost, chunks: list[tuple[int, int]]) -> None:
    for tokens, context in chunks:
        pace.prefilled(tokens, context, cost.seconds(tokens, context))


@given(costs)
def test_costs_are_learned_from_chunks_of_several_sizes(cost: ChunkCost) -> None:
    pace = Pace()
    sizes = [(256, 0), (256, 256), (64, 512), (128, 512), (32, 640), (256, 1024)]
    measured(pace, cost, sizes * 40)
    for tokens, context in [(100, 300), (200, 900), (48, 100)]:
        truth = cost.seconds(tokens, context)
        assert abs(pace.cost.seconds(tokens, context) - truth) < 0.25 * truth


def test_from_chunks_of_one_size_shorter_ones_are_taken_to_cost_more_than_their_share() -> None:
    pace = Pace()
    measured(pace, ChunkCost(0.0, 0.004, 0.0), [(256, 0), (256, 256), (256, 512)])
    assert 0.9 < pace.cost.seconds(256, 256) < 1.15
    assert pace.cost.seconds(64, 256) > 0.3


def test_one_hiccup_changes_little() -> None:
    pace, cost = Pace(), ChunkCost(0.1, 0.004, 1e-6)
    measured(pace, cost, [(256, 0), (128, 256), (64, 512), (256, 600)] * 10)
    before = pace.cost.seconds(128, 512)
    pace.prefilled(128, 512, 10 * cost.seconds(128, 512))
    assert abs(pace.cost.seconds(128, 512) - before) < 0.2 * before


def test_decode_steps_are_learned_alike_unless_something_disturbs_them() -> None:
    pace = Pace()
    pace.disturbed()
    pace.decoded(9.0)
    pace.decoded(0.2)
    assert pace.decode_step_s == 0.2
    pace.decoded(0.1)
    learned = pace.decode_step_s
    assert 0.1 < learned < 0.2
    pace.prefilled(64, 0, 1.0, beside=True)
    pace.decoded(0.001)
    assert pace.decode_step_s == learned


@given(st.floats(0.001, 1.0), st.floats(0.5, 2.0))
def test_what_a_second_row_costs_is_learned_from_steps_of_both_kinds(
    step: float, ratio: float
) -> None:
    pace = Pace()
    pace.decoded(9.0)  # follows nothing that is known
    for _ in range(ENOUGH):
        assert pace.row_cost == 0.0
        pace.decoded(step, 1)
    pace.disturbed()
    pace.decoded(9.0, 2)
    for _ in range(ENOUGH):
        assert pace.row_cost == 0.0
        pace.decoded(step * ratio, 2)
        pace.decoded(9.0, 3)
    assert abs(pace.row_cost - (ratio - 1)) < 1e-6
