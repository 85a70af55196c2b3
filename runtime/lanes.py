"""The streams over which a chunk's forward pass is spread on a CPU."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

LEAST = 4
"""Tokens of a part. MKL computes fewer rows in another order, so that their bits would depend on
where a prompt is cut; on Intel's CPUs up to 15, unless it is told otherwise (docs/stage.md)."""


class Lanes:
    """Runs a chunk in parts, each on a stream of its own.

    MLX's CPU backend works off a stream on one thread. Two parts overlap, since a layer of the
    second waits for no more than the same layer's K and V of the first; what is computed is that
    of the parts one after the other. Without ``streams``, as on a GPU, whose one queue is busy all
    the time, a chunk is one pass.

    On the MLX thread, to which the streams belong. Whoever makes them sees to it that a product
    takes no more than its part of the cores.
    """

    def __init__(self, streams: Sequence[mx.Stream] = ()) -> None:
        self._streams = tuple(streams)

    def warm_up(self, model: nn.Module) -> mx.array:
        """A short pass that leaves nothing behind, and its logits ``(1, L, V)``.

        What a first one sets up, threads and on a GPU kernels, is not left to the first turn.
        """
        tokens = range(1, 1 + LEAST * max(1, len(self._streams)))
        logits = self.forward(model, tokens, make_prompt_cache(model))
        mx.eval(logits)
        return logits

    def forward(self, model: nn.Module, tokens: Sequence[int], cache: list[Any]) -> mx.array:
        """The logits ``(1, L, V)`` of the last part, to be evaluated, after ``cache`` took all
        in."""
        streams = self._streams or (mx.default_stream(mx.default_device()),)
        parts = max(1, min(len(streams), len(tokens) // LEAST))
        size = -(-len(tokens) // parts)
        for stream, at in zip(streams, range(0, len(tokens), size), strict=False):
            with mx.stream(stream):
                part = mx.array([list(tokens[at : at + size])], dtype=mx.uint32)
                logits: mx.array = model(part, cache=cache)
        return logits
