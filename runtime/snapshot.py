"""What forgetful layers held when a sequence stood at a boundary.

A sliding window moves on and a recurrent state is overwritten, so both must be taken when the
sequence passes a boundary; afterwards it is too late. Taking is cheap: arrays do not change, so
it only keeps those that are there from being freed.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm.models.cache import ArraysCache, RotatingKVCache

from greenroom.runtime.spec import cells


class Rows(msgspec.Struct, frozen=True):
    """K (1, heads, rows, k_dim) and V of the positions from ``start`` on, oldest first."""

    start: int
    keys: mx.array
    values: mx.array

    def cut(self, start: int, stop: int) -> tuple[mx.array, mx.array]:
        """The rows of positions [start, stop), as far as they are here: maybe none."""
        first = max(0, start - self.start)
        last = max(first, stop - self.start)
        return self.keys[..., first:last, :], self.values[..., first:last, :]


Held = Rows | tuple[mx.array, ...] | None
"""A window's rows, a layer's states, or None for full attention, which forgets nothing."""


class Snapshot(msgspec.Struct, frozen=True):
    """The forgetful layers of a sequence of ``position`` tokens, one entry for each layer."""

    position: int
    layers: Sequence[Held]

    def arrays(self) -> list[mx.array]:
        """All arrays, to be evaluated with what they come from."""
        found: list[mx.array] = []
        for held in self.layers:
            if isinstance(held, Rows):
                found += [held.keys, held.values]
            elif held is not None:
                found += held
        return found


def take(caches: Sequence[Any], position: int) -> Snapshot:
    """A snapshot of ``caches``, which hold ``position`` tokens. Lazy, on the MLX thread."""
    return Snapshot(position, [_held(cell) for cell in cells(caches)])


def _held(cell: Any) -> Held:
    if type(cell) is RotatingKVCache:
        return _window(cell)
    if type(cell) is ArraysCache:
        return tuple(cell.state[0])
    return None


def _window(cache: RotatingKVCache) -> Rows:
    keys, values, offset, _, _, end = cache.state
    if keys is None:
        raise ValueError("a window without a token")
    if end < min(offset, keys.shape[2]):  # come round: the newest row is before ``end``
        keys, values = (
            mx.concatenate([x[..., end:, :], x[..., :end, :]], axis=2) for x in (keys, values)
        )
    else:
        # A slice even of the whole: the cache may yet write into its own array.
        keys, values = keys[..., :end, :], values[..., :end, :]
    return Rows(offset - keys.shape[2], keys, values)
