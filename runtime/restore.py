"""Building mlx-lm's caches from stored segments, and writing segments behind what they hold.

On the MLX thread; where numpy decodes, a pool may share the work.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm.models.cache import ArraysCache

from greenroom.runtime.cache import attention_cache, capacity_for, nested, resume_position
from greenroom.runtime.codec import Payload, check, stored_rows
from greenroom.runtime.encoding import KVState, decode_rows, decode_rows_into, decode_state
from greenroom.runtime.host import MLX_DTYPES, host_route, to_host
from greenroom.runtime.quantize import Array
from greenroom.runtime.spec import CacheSpec, LayerSpec, StateSpec

_LAYERS_AT_ONCE = 4
"""Decoded by one task: handing one over costs as much as decoding a few tokens of a layer."""


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
        attention_cache(cell, states.get(index), length)
        if isinstance(cell, LayerSpec)
        else _arrays(spec, pieces, index, cell)
        for index, cell in enumerate(spec.layers)
    ]
    return nested(flat, spec.lists)


def overwrite(
    spec: CacheSpec,
    caches: Sequence[Any],
    spans: Sequence[tuple[Payload, int, int]],
    pool: Executor | None = None,
) -> None:
    """Write stored rows behind those of the caches, where there is room for them.

    ``spans`` are (payload, first stored row, rows) in order; all layers attend to everything.
    Nobody else may hold the caches' arrays: where numpy decodes, it does so in their memory.
    """
    rows = sum(count for _, _, count in spans)
    plan = [
        _Build(layer, cell, cache.offset + rows, cache.offset, list(spans))
        for layer, (cell, cache) in enumerate(zip(spec.layers, caches, strict=True))
        if isinstance(cell, LayerSpec)
    ]
    if host_route():
        mx.eval([(cache.keys, cache.values) for cache in caches])
        _decode_into(spec, plan, [(cache.keys, cache.values) for cache in caches], pool)
        for cache in caches:
            cache.offset += rows
        return
    for build, cache in zip(plan, caches, strict=True):
        for payload, first, count in spans:
            stop = first + count
            cache.update_and_fetch(
                *(decode_rows(spec, payload, build.layer, w, stop, first) for w in ("k", "v"))
            )
    mx.eval([cache.state[:2] for cache in caches])


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


def _arrays(
    spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], layer: int, cell: StateSpec
) -> ArraysCache:
    cache = ArraysCache(len(cell.arrays))
    if pieces:
        payload, used = pieces[-1]
        cache.state = ([*decode_state(spec, payload, layer, payload.num_tokens - used)], None, None)
    return cache


def _fill(spec: CacheSpec, plan: Sequence[_Build], pool: Executor | None) -> list[KVState]:
    """Decode every segment straight into its rows of the final buffers: no copies, no joins."""
    states: list[KVState] = []
    for build in plan:
        keys, values = (mx.zeros(shape, build.dtype) for shape in build.shapes(build.capacity))
        # One evaluation per layer, so that the first pages are ready while the next are cleared.
        mx.async_eval(keys, values)
        states.append((keys, values))
    _decode_into(spec, plan, states, pool)
    return states


def _decode_into(
    spec: CacheSpec, plan: Sequence[_Build], states: Sequence[KVState], pool: Executor | None
) -> None:
    """Decode on the host, every layer into its own memory."""

    def fill(layers: Sequence[tuple[_Build, Array, Array]]) -> None:
        for build, keys, values in layers:
            at = build.front
            for payload, first, count in build.spans:
                rows = slice(at, at + count)
                decode_rows_into(spec, payload, build.layer, "k", keys[:, rows], first)
                decode_rows_into(spec, payload, build.layer, "v", values[:, rows], first)
                at += count

    pending = []
    for start in range(0, len(plan), _LAYERS_AT_ONCE):
        some = slice(start, start + _LAYERS_AT_ONCE)
        layers = [
            (build, to_host(keys)[0], to_host(values)[0])
            for build, (keys, values) in zip(plan[some], states[some], strict=True)
        ]
        if pool is None:
            fill(layers)
        else:
            pending.append(pool.submit(fill, layers))
    for job in pending:
        job.result()


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
