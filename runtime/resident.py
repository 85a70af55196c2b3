"""Decoded copies of memories, kept on the device for agents that are likely to speak next."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from greenroom.runtime.cache import capacity_for, nbytes
from greenroom.runtime.encoding import SegmentState

HEADROOM = 256
"""Tokens that fit behind a resident copy without a reallocation: a question and an answer."""


class ResidentCaches:
    """Caches by handle, least recently made first out, under a byte budget. On the MLX thread.

    A copy holds bit for bit what decoding the segments gives, so that having one changes nothing
    but the time to the first token. It is taken by one turn and made anew at that turn's end.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._caches: OrderedDict[int, list[KVCache]] = OrderedDict()
        self.num_bytes = 0

    def put(self, handle: int, caches: list[KVCache]) -> None:
        """Keep the caches, and let go of the oldest until all fit."""
        self._caches[handle] = caches
        self.num_bytes += nbytes(caches)
        while self.num_bytes > self._budget_bytes:
            self.take(next(iter(self._caches)))

    def take(self, handle: int | None) -> list[KVCache] | None:
        """The caches of ``handle``, which are the caller's now; None if they are gone."""
        caches = self._caches.pop(handle, None) if handle is not None else None
        if caches is not None:
            self.num_bytes -= nbytes(caches)
        return caches


def can_be_resident(caches: Sequence[object]) -> bool:
    """Whether these caches can be put together again from rows: all layers attend to everything."""
    return bool(caches) and all(type(cache) is KVCache for cache in caches)


def rebuilt(live: Sequence[Any], length: int, decoded: Sequence[SegmentState]) -> list[KVCache]:
    """The first ``length`` rows of ``live`` followed by the rows of ``decoded`` segments.

    Costs one copy; only the new segments are decoded.
    """
    caches = []
    for layer, old in enumerate(live):
        keys = [old.keys[..., :length, :], *(d.rows(layer)[0] for d in decoded)]
        values = [old.values[..., :length, :], *(d.rows(layer)[1] for d in decoded)]
        total = sum(part.shape[2] for part in keys)
        spare = capacity_for(total + HEADROOM) - total
        cache = KVCache()
        cache.keys = _joined(keys, spare)
        cache.values = _joined(values, spare)
        cache.offset = total
        caches.append(cache)
    mx.eval([cache.state[:2] for cache in caches])
    return caches


def _joined(parts: list[mx.array], spare: int) -> mx.array:
    shape = (*parts[0].shape[:2], spare, parts[0].shape[3])
    return mx.concatenate([*parts, mx.zeros(shape, parts[0].dtype)], axis=2)
