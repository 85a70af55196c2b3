"""Surgery on mlx-lm's plain per-sequence caches: cut segments out of them, copy and lengthen them.

Everything here runs on the MLX thread.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from greenroom.runtime.codec import Payload, link
from greenroom.runtime.encoding import (
    KVState,
    LayerState,
    SegmentState,
)
from greenroom.runtime.resume import resume_at
from greenroom.runtime.snapshot import Held, Rows, Snapshot, take
from greenroom.runtime.spec import CacheSpec, LayerSpec, StateSpec, cells


def slice_states(
    caches: Sequence[Any], start: int, stop: int, snapshots: Sequence[Snapshot] = ()
) -> SegmentState:
    """The state of positions [start, stop), lazily.

    Of full attention all rows, of a sliding window the newest ``window`` ones as far as they are
    still there, and the states that were kept inside the segment. ``caches`` may be past
    ``stop``, where full attention needs nothing else; the rest comes from the ``snapshots``.
    Raises ValueError when a cache holds fewer than ``stop`` tokens.
    """
    if not 0 <= start < stop:
        raise ValueError(f"rows [{start}, {stop}) of a cache")
    at_stop = next((s for s in snapshots if s.position == stop), None) or take(caches, stop)
    layers: list[LayerState] = []
    for index, cell in enumerate(cells(caches)):
        if type(cell) is ArraysCache:
            layers.append(_kept_states(index, start, stop, snapshots))
        elif type(cell) is RotatingKVCache:
            rows = at_stop.layers[index]
            assert isinstance(rows, Rows)
            layers.append(rows.cut(max(start, stop - cell.max_size), stop))
        else:
            if cell.keys is None or stop > cell.offset:
                raise ValueError(f"rows [{start}, {stop}) of a cache with {cell.offset} tokens")
            layers.append((cell.keys[..., start:stop, :], cell.values[..., start:stop, :]))
    return SegmentState(stop - start, layers)


def _kept_states(
    layer: int, start: int, stop: int, snapshots: Sequence[Snapshot]
) -> dict[int, tuple[mx.array, ...]]:
    kept: dict[int, tuple[mx.array, ...]] = {}
    for snapshot in snapshots:
        held: Held = snapshot.layers[layer]
        if start < snapshot.position <= stop and isinstance(held, tuple):
            kept[stop - snapshot.position] = held
    return kept


def nbytes(caches: Sequence[Any]) -> int:
    """Bytes allocated by the caches, headroom included."""
    return sum(cache.nbytes for cache in caches)


def capacity_for(num_tokens: int) -> int:
    """Rows to allocate for ``num_tokens``: whole steps, as KVCache itself grows."""
    step: int = KVCache.step
    return -(-num_tokens // step) * step


def branch(
    spec: CacheSpec, caches: Sequence[Any], held: Snapshot | None, position: int, headroom: int
) -> list[Any]:
    """A copy of the caches as they were after ``position`` tokens, with room for ``headroom`` more.

    ``caches`` may have gone further. ``held`` is what the layers that forget had at ``position``,
    or of windows at most one token later; None where there are none.
    """
    flat: list[Any] = []
    for index, (cell, cache) in enumerate(zip(spec.layers, cells(caches), strict=True)):
        kept = held.layers[index] if held is not None else None
        if isinstance(cell, StateSpec):
            assert isinstance(kept, tuple)
            copy = ArraysCache(len(cell.arrays))
            copy.state = ([*kept], None, None)
            flat.append(copy)
        elif cell.kind == "window":
            assert isinstance(kept, Rows)
            first = max(0, position - cell.window)
            rows = kept.cut(first, position)
            front = position - first - rows[0].shape[2]
            flat.append(attention_cache(cell, padded(rows, front, 0), position))
        else:
            rows = (cache.keys[..., :position, :], cache.values[..., :position, :])
            spare = capacity_for(position + headroom) - position
            flat.append(attention_cache(cell, padded(rows, 0, spare), position))
    mx.eval([cache.state for cache in flat])
    return nested(flat, spec.lists)


def padded(rows: KVState, front: int, back: int) -> KVState:
    """The same with so many rows of zeros before and behind."""
    keys, values = (mx.pad(each, [(0, 0), (0, 0), (front, back), (0, 0)]) for each in rows)
    return keys, values


def resume_position(spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], limit: int) -> int:
    """The deepest position up to ``limit`` at which ``restore`` can take the pieces up."""
    links = [link(spec, payload, used) for payload, used in pieces]
    return resume_at(links, spec.windows, stateful=spec.stateful, limit=limit)


def attention_cache(cell: LayerSpec, state: KVState | None, length: int) -> Any:
    if cell.kind == "window":
        window = RotatingKVCache(cell.window)
        if state is not None:
            rows = state[0].shape[2]
            window.state = (*state, length, 0, cell.window, rows)
        return window
    full = KVCache()
    if state is not None:
        full.state = (*state, length)
    return full


def nested(flat: list[Any], lists: Sequence[int]) -> list[Any]:
    if not lists:
        return flat
    rest = iter(flat)
    return [CacheList(*(next(rest) for _ in range(size))) if size else next(rest) for size in lists]


def reserve(caches: Sequence[Any], rows: int, headroom: int = 0) -> None:
    """See to it that ``rows`` more fit behind the caches' own.

    Copies them where they do not, or where hardly any of the ``headroom`` would be left: with
    the ``headroom`` then, and an eighth of their length, so that copies get rarer as they grow.
    """
    for cache in caches:
        total = cache.offset + rows
        if total + headroom // 4 > cache.keys.shape[2]:
            spare = capacity_for(total + headroom + total // 8) - cache.offset
            kept = (cache.keys[..., : cache.offset, :], cache.values[..., : cache.offset, :])
            cache.keys, cache.values = padded(kept, 0, spare)
