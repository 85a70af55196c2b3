"""Samplers: greedy, and draws that depend on nothing but seed and position."""

from typing import cast

import mlx.core as mx
import pytest

from greenroom.runtime.records import Sampling
from greenroom.runtime.sampling import greedy, make_sampler, mix
from tests.tiny import token


def logprobs(rows: int = 1, vocabulary: int = 500) -> mx.array:
    raw = mx.random.normal((rows, vocabulary), key=mx.random.key(3)) * 3
    return raw - mx.logsumexp(raw, axis=-1, keepdims=True)


def by_likelihood() -> list[int]:
    return cast("list[int]", mx.argsort(-logprobs()[0]).tolist())


def draw(sampling: Sampling, times: int = 20) -> list[int]:
    sampler = make_sampler(sampling)
    return [token(sampler(logprobs())) for _ in range(times)]


def test_temperature_zero_is_greedy() -> None:
    assert make_sampler(Sampling(temperature=0.0)) is greedy
    assert greedy(logprobs()).tolist() == mx.argmax(logprobs(), axis=-1).tolist()


def test_a_seed_gives_the_same_draws_whatever_mlx_drew_before() -> None:
    first = draw(Sampling(temperature=1.0, seed=7))
    mx.random.seed(99)
    mx.eval(mx.random.normal((10,)))
    assert draw(Sampling(temperature=1.0, seed=7)) == first
    assert draw(Sampling(temperature=1.0, seed=8)) != first
    assert len(set(first)) > 1


def test_the_same_row_in_a_batch_draws_the_same() -> None:
    alone = draw(Sampling(temperature=1.0, seed=7), 1)
    sampler = make_sampler(Sampling(temperature=1.0, seed=7))
    assert token(sampler(logprobs()[0:1])) == alone[0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0, seed=1, top_k=1),
        Sampling(temperature=2.0, seed=1, top_p=1e-6),
        Sampling(temperature=2.0, seed=1, min_p=1.0),
    ],
)
def test_the_tightest_filter_leaves_the_most_likely(sampling: Sampling) -> None:
    assert set(draw(sampling)) == {token(greedy(logprobs()))}


def test_top_k_draws_among_the_k_most_likely() -> None:
    order = by_likelihood()
    drawn = set(draw(Sampling(temperature=5.0, seed=2, top_k=3), 60))
    assert drawn == set(order[:3])


def test_temperature_comes_before_top_p() -> None:
    # Flat at a high temperature: half of the mass is half of the vocabulary, not a few tokens.
    drawn = draw(Sampling(temperature=100.0, seed=2, top_p=0.5), 60)
    likely = by_likelihood()
    assert max(likely.index(t) for t in drawn) > 100


def test_mix_spreads_neighbouring_positions_and_seeds() -> None:
    keys = {mix(seed, position) for seed in range(50) for position in range(50)}
    assert len(keys) == 2500
    assert all(0 <= key < 2**64 for key in keys)


@pytest.mark.parametrize(("temperature", "top_p"), [(1e-300, 1.0), (1.0, 1e-300)])
def test_next_to_nothing_is_greedy_and_not_noise(temperature: float, top_p: float) -> None:
    sampler = make_sampler(Sampling(seed=1, temperature=temperature, top_p=top_p))
    assert [token(sampler(logprobs())) for _ in range(8)] == [by_likelihood()[0]] * 8
