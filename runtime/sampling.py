"""Samplers for mlx-lm's decode loop: from log-probabilities ``[rows, vocab]`` to ``[rows]`` ids."""

from collections.abc import Callable, Sequence

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from greenroom.runtime.logprobs import LogprobRecorder
from greenroom.runtime.penalties import Shaper, make_shapers
from greenroom.runtime.records import Sampling, TokenLogprob

Sampler = Callable[[mx.array], mx.array]
Processor = Callable[[mx.array, mx.array], mx.array]
"""mlx-lm's logits processor: tokens so far and logits ``[1, vocab]`` to logits of that shape."""
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


class Draw:
    """How one sequence's tokens are drawn: shape the logits, then sample.

    ``sampler`` and ``processors`` are what mlx-lm's decode loop calls; a sequence that asks for
    nothing special has no processors, and the bare sampler, which costs what it always did.
    """

    def __init__(
        self, sampler: Sampler, shapers: Sequence[Shaper], recorder: LogprobRecorder | None
    ) -> None:
        plain = not shapers and recorder is None
        self.sampler: Sampler = sampler if plain else self._sample
        self.processors: list[Processor] = [] if plain else [self._shape]
        self._bare = sampler
        self._shapers = shapers
        self._recorder = recorder
        self._last: mx.array | None = None

    def first(self, logits: mx.array) -> mx.array:
        """The first token ``[1]``, from the logits ``[1, vocab]`` of the prompt's last position."""
        for process in self.processors:
            logits = process(mx.array([], dtype=mx.uint32), logits)
        return self.sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True))

    def told(self) -> tuple[TokenLogprob, ...]:
        """The log-probability of the token that is told now, if they are wanted."""
        return () if self._recorder is None else (self._recorder.take(),)

    def _shape(self, _tokens: mx.array, logits: mx.array) -> mx.array:
        if self._recorder is not None:
            self._recorder.see(logits)
        for shape in self._shapers:
            logits = shape(self._last, logits)
        return logits

    def _sample(self, logprobs: mx.array) -> mx.array:
        self._last = self._bare(logprobs)
        if self._recorder is not None:
            self._recorder.drew(self._last)
        return self._last


def make_draw(sampling: Sampling, prompt: Sequence[int], grammar: Shaper | None = None) -> Draw:
    """How one turn's tokens are drawn, after ``prompt``; a ``grammar`` has the last word."""
    shapers = make_shapers(sampling, prompt)
    if grammar is not None:
        shapers.append(grammar)
    num_top = sampling.top_logprobs
    recorder = None if num_top is None else LogprobRecorder(num_top)
    return Draw(make_sampler(sampling), shapers, recorder)
