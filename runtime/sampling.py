"""Samplers for mlx-lm's decode loop: from log-probabilities ``[rows, vocab]`` to ``[rows]`` ids."""

from collections.abc import Callable

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from greenroom.runtime.records import Sampling

Sampler = Callable[[mx.array], mx.array]
SMALLEST = 1e-5
"""Of temperature and top_p: below it float32 would leave no token at all, and greedy is meant."""


def greedy(logprobs: mx.array) -> mx.array:
    """The most likely token of each row."""
    return mx.argmax(logprobs, axis=-1)


class SeededSampler:
    """Draws with keys of its own, one per position, so neighbours in a batch change nothing.

    mlx-lm's ``make_sampler`` draws from MLX's global state and filters before temperature; here
    the draw is a function of (seed, position) alone, and temperature comes first as in OpenAI's
    API. The decode loop runs one token ahead, so it may be called once past the end.
    """

    def __init__(self, sampling: Sampling, temperature: float, top_p: float) -> None:
        """``sampling.seed`` must be set; ``temperature`` above 0, ``top_p`` in (0, 1]."""
        assert sampling.seed is not None
        self._seed = sampling.seed
        self._position = 0
        self._temperature = temperature
        self._top_p = top_p
        self._top_k = sampling.top_k
        self._min_p = sampling.min_p

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Draw one token per row of normalized ``logprobs`` ``[rows, vocab]``."""
        key = mx.random.key(mix(self._seed, self._position))
        self._position += 1
        scaled = logprobs * (1 / self._temperature)
        scaled = scaled - mx.logsumexp(scaled, axis=-1, keepdims=True)
        if 0 < self._top_k < scaled.shape[-1]:
            scaled = apply_top_k(scaled, self._top_k)
        if self._top_p < 1.0:
            scaled = apply_top_p(scaled, self._top_p)
        if self._min_p > 0.0:
            scaled = apply_min_p(scaled, self._min_p)
        return mx.random.categorical(scaled, key=key)


def mix(seed: int, position: int) -> int:
    """A 64-bit key from a seed and a position (the finalizer of splitmix64, Steele et al. 2014)."""
    mask = 2**64 - 1
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def make_sampler(sampling: Sampling) -> Sampler:
    """The sampler of one turn; every default of the model is already filled in."""
    temperature = 1.0 if sampling.temperature is None else sampling.temperature
    top_p = 1.0 if sampling.top_p is None else sampling.top_p
    if temperature < SMALLEST or top_p < SMALLEST:
        return greedy
    return SeededSampler(sampling, temperature, top_p)
