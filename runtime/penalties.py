"""What shapes a row's logits before its token is drawn: penalties and biases, computed lazily.

A shaper maps logits ``[1, vocab]`` to logits of that shape, once per position; it is told the
token drawn before (``[1]``, None at the first) as an array, and never waits for its value.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from greenroom.runtime.records import Sampling

Shaper = Callable[[mx.array | None, mx.array], mx.array]


class RepetitionPenalty:
    """Makes every token of the prompt and of the answer so far less likely, by a factor.

    A positive logit is divided by the penalty and a negative one multiplied, as in CTRL (Keskar et
    al. 2019) and Hugging Face's ``RepetitionPenaltyLogitsProcessor``.
    """

    def __init__(self, penalty: float, prompt: Sequence[int]) -> None:
        self._penalty = penalty
        self._prompt = prompt
        self._seen: mx.array | None = None

    def __call__(self, last: mx.array | None, logits: mx.array) -> mx.array:
        """Shape one position's logits."""
        if self._seen is None:
            seen = np.zeros(logits.shape[-1], dtype=np.bool_)
            seen[np.asarray(self._prompt, dtype=np.int64)] = True
            self._seen = mx.array(seen)
        if last is not None:
            self._seen[last] = True
        penalized = mx.where(logits > 0, logits / self._penalty, logits * self._penalty)
        return mx.where(self._seen, penalized, logits)


class CountPenalty:
    """Subtracts from every token of the answer so far, as OpenAI's two penalties do.

    ``frequency`` for each time it was drawn, ``presence`` once; the prompt does not count.
    """

    def __init__(self, presence: float, frequency: float) -> None:
        self._presence = presence
        self._frequency = frequency
        self._counts: mx.array | None = None

    def __call__(self, last: mx.array | None, logits: mx.array) -> mx.array:
        """Shape one position's logits."""
        if self._counts is None:
            self._counts = mx.zeros(logits.shape[-1], dtype=mx.int32)
        if last is not None:
            self._counts = self._counts.at[last].add(1)
        drawn = (self._counts > 0) * self._presence + self._counts * self._frequency
        return logits - drawn.astype(logits.dtype)


class LogitBias:
    """Adds to the logits of a few tokens; an id beyond the vocabulary is nobody's."""

    def __init__(self, biases: Sequence[tuple[int, float]]) -> None:
        self._biases = biases
        self._dense: mx.array | None = None

    def __call__(self, last: mx.array | None, logits: mx.array) -> mx.array:
        """Shape one position's logits."""
        if self._dense is None:
            dense = np.zeros(logits.shape[-1], dtype=np.float32)
            for token, bias in self._biases:
                if token < dense.size:
                    dense[token] = bias
            self._dense = mx.array(dense).astype(logits.dtype)
        return logits + self._dense


def make_shapers(sampling: Sampling, prompt: Sequence[int]) -> list[Shaper]:
    """The shapers that a turn asks for, in the order in which they apply; mostly none."""
    shapers: list[Shaper] = []
    if sampling.repetition_penalty != 1.0:
        shapers.append(RepetitionPenalty(sampling.repetition_penalty, prompt))
    if sampling.presence_penalty or sampling.frequency_penalty:
        shapers.append(CountPenalty(sampling.presence_penalty, sampling.frequency_penalty))
    if sampling.logit_bias:
        shapers.append(LogitBias(sampling.logit_bias))
    return shapers
