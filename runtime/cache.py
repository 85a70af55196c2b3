"""Surgery on mlx-lm's plain per-sequence caches: cut segments out of them, build them from rest.

Everything here runs on the MLX thread; only the decoding of bytes may be shared with a pool.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from greenroom.runtime.codec import Payload, check, link, stored_rows
from greenroom.runtime.encoding import (
    KVState,
    LayerState,
    SegmentState,
    decode_rows,
    decode_rows_into,
    decode_state,
)
from greenroom.runtime.host import MLX_DTYPES, host_route, to_host
from greenroom.runtime.quantize import Array
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


class _Build(msgspec.Struct):
    """One attention layer under construction: positions from ``oldest`` to the sequence's end.

    ``spans`` are (payload, first stored row, rows) in order. Rows that no span fills stay zero:
    headroom at the end, and of a window the oldest row, which nothing attends to any more.
    """

    layer: int
    cell: LayerSpec
    capacity: int
    front: int
    spans: list[tuple[Payload, int, int]]

    @property
    def dtype(self) -> mx.Dtype:
        return MLX_DTYPES[self.cell.dtype]

    def shapes(self, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of K and V with so many rows."""
        heads = self.cell.heads
        return (1, heads, rows, self.cell.k_dim), (1, heads, rows, self.cell.v_dim)


def restore(
    spec: CacheSpec,
    pieces: Sequence[tuple[Payload, int]],
    headroom: int = 0,
    pool: Executor | None = None,
) -> list[Any]:
    """The model's caches after the first ``used`` tokens of each payload, in order.

    ``headroom`` more tokens fit without a reallocation, which would copy all before them. The
    rows are bit for bit those of ``decode``. ``pool`` shares the work between threads where numpy
    does it. Raises BadPayload when a payload does not fit the spec, ValueError when ``used`` is
    not within it or the pieces do not hold all that is needed at their end (``resume_at`` tells
    where they do).
    """
    for payload, used in pieces:
        check(spec, payload)
        if not 0 < used <= payload.num_tokens:
            raise ValueError(f"{used} rows of a segment of {payload.num_tokens}")
    length = sum(used for _, used in pieces)
    if resume_position(spec, pieces, length) != length:
        raise ValueError(f"these segments cannot be taken up at {length}")
    plan = [
        _plan(spec, pieces, index, cell, length, headroom)
        for index, cell in enumerate(spec.layers)
        if isinstance(cell, LayerSpec) and (length or (headroom and cell.kind == "full"))
    ]
    filled = _fill(spec, plan, pool) if host_route() else _concatenate(spec, plan)
    states = dict(zip((build.layer for build in plan), filled, strict=True))
    flat = [
        _attention(cell, states.get(index), length)
        if isinstance(cell, LayerSpec)
        else _arrays(spec, pieces, index, cell)
        for index, cell in enumerate(spec.layers)
    ]
    return _nest(flat, spec.lists)


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
            flat.append(_attention(cell, _padded(rows, front, 0), position))
        else:
            rows = (cache.keys[..., :position, :], cache.values[..., :position, :])
            spare = capacity_for(position + headroom) - position
            flat.append(_attention(cell, _padded(rows, 0, spare), position))
    mx.eval([cache.state for cache in flat])
    return _nest(flat, spec.lists)


def _padded(rows: KVState, front: int, back: int) -> KVState:
    """The same with so many rows of zeros before and behind."""
    keys, values = (mx.pad(each, [(0, 0), (0, 0), (front, back), (0, 0)]) for each in rows)
    return keys, values


def resume_position(spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], limit: int) -> int:
    """The deepest position up to ``limit`` at which ``restore`` can take the pieces up."""
    links = [link(spec, payload, used) for payload, used in pieces]
    return resume_at(links, spec.windows, stateful=spec.stateful, limit=limit)


def _plan(
    spec: CacheSpec,
    pieces: Sequence[tuple[Payload, int]],
    layer: int,
    cell: LayerSpec,
    length: int,
    headroom: int,
) -> _Build:
    windowed = cell.kind == "window"
    oldest = max(0, length - cell.window) if windowed else 0
    spans: list[tuple[Payload, int, int]] = []
    at = 0
    for payload, used in pieces:
        stored = at + payload.num_tokens - stored_rows(spec, payload, layer)
        first, end = max(oldest, stored), at + used
        if first < end:
            spans.append((payload, first - stored, end - first))
        at = end
    rows = sum(count for _, _, count in spans)
    capacity = length - oldest if windowed else capacity_for(length + headroom)
    return _Build(layer, cell, capacity, length - oldest - rows, spans)


def _attention(cell: LayerSpec, state: KVState | None, length: int) -> Any:
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


def _arrays(
    spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], layer: int, cell: StateSpec
) -> ArraysCache:
    cache = ArraysCache(len(cell.arrays))
    if pieces:
        payload, used = pieces[-1]
        cache.state = ([*decode_state(spec, payload, layer, payload.num_tokens - used)], None, None)
    return cache


def _nest(flat: list[Any], lists: Sequence[int]) -> list[Any]:
    if not lists:
        return flat
    rest = iter(flat)
    return [CacheList(*(next(rest) for _ in range(size))) if size else next(rest) for size in lists]


def _fill(spec: CacheSpec, plan: Sequence[_Build], pool: Executor | None) -> list[KVState]:
    """Decode every segment straight into its rows of the final buffers: no copies, no joins."""
    states: list[KVState] = []
    for build in plan:
        keys, values = (mx.zeros(shape, build.dtype) for shape in build.shapes(build.capacity))
        # One evaluation per layer, so that the first pages are ready while the next are cleared.
        mx.async_eval(keys, values)
        states.append((keys, values))

    def fill(build: _Build, keys: Array, values: Array) -> None:
        at = build.front
        for payload, first, count in build.spans:
            rows = slice(at, at + count)
            decode_rows_into(spec, payload, build.layer, "k", keys[:, rows], first)
            decode_rows_into(spec, payload, build.layer, "v", values[:, rows], first)
            at += count

    pending = []
    for build, (keys, values) in zip(plan, states, strict=True):
        views = (to_host(keys)[0], to_host(values)[0])
        if pool is None:
            fill(build, *views)
        else:
            pending.append(pool.submit(fill, build, *views))
    for job in pending:
        job.result()
    return states


def _concatenate(spec: CacheSpec, plan: Sequence[_Build]) -> list[KVState]:
    states: list[KVState] = []
    for build in plan:
        at = [(p, build.layer, first, first + count) for p, first, count in build.spans]
        keys = [decode_rows(spec, p, layer, "k", stop, start) for p, layer, start, stop in at]
        values = [decode_rows(spec, p, layer, "v", stop, start) for p, layer, start, stop in at]
        back = build.capacity - build.front - sum(n for _, _, n in build.spans)
        for parts, side in ((keys, 0), (values, 1)):
            if build.front:
                parts.insert(0, mx.zeros(build.shapes(build.front)[side], build.dtype))
            if back:
                parts.append(mx.zeros(build.shapes(back)[side], build.dtype))
        states.append((mx.concatenate(keys, axis=2), mx.concatenate(values, axis=2)))
    mx.eval(states)
    return states
