"""Building mlx-lm's caches from stored segments, and writing segments behind what they hold.

On the MLX thread; where numpy decodes, a pool may share the work.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import mlx.core as mx
import msgspec
from mlx_lm.models.cache import ArraysCache

from greenroom.runtime.cache import attention_cache, capacity_for, nested, resume_position
from greenroom.runtime.codec import Payload, Tensor, check, stored_rows
from greenroom.runtime.encoding import KVState, decode_rows, decode_rows_into, decode_state
from greenroom.runtime.host import MLX_DTYPES, helpers, host_route, to_host
from greenroom.runtime.quantize import Array
from greenroom.runtime.spec import CacheSpec, LayerSpec, StateSpec

_SIDES: tuple[Tensor, Tensor] = ("k", "v")


class _Build(msgspec.Struct):
    """The attention layers of one group under construction: the sequence's last positions.

    ``spans`` are (payload, first stored row, rows) in order. Rows that no span fills stay zero:
    headroom at the end, and of a window the oldest row, which nothing attends to any more.
    """

    number: int
    cell: LayerSpec
    layers: tuple[int, ...]
    capacity: int
    front: int
    spans: Sequence[tuple[Payload, int, int]]

    @property
    def dtype(self) -> mx.Dtype:
        return MLX_DTYPES[self.cell.dtype]

    def shapes(self, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of K and V with so many rows."""
        heads = self.cell.heads
        return (1, heads, rows, self.cell.k_dim), (1, heads, rows, self.cell.v_dim)

    def decoded(self, span: tuple[Payload, int, int]) -> list[KVState]:
        """K and V of a span, for each layer."""
        payload, first, count = span
        keys, values = (
            decode_rows(
                payload, self.number, self.cell, len(self.layers), which, first + count, first
            )
            for which in _SIDES
        )
        return list(zip(keys, values, strict=True))


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
        _plan(pieces, number, cell, layers, length, headroom)
        for number, (cell, layers) in enumerate(spec.groups())
        if isinstance(cell, LayerSpec) and (length or (headroom and cell.kind == "full"))
    ]
    filled = _fill(plan, pool) if host_route() else _concatenate(plan)
    flat = [
        attention_cache(cell, filled.get(index), length)
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
    front = caches[0].offset
    plan = [
        _Build(number, cell, layers, front + rows, front, spans)
        for number, (cell, layers) in enumerate(spec.groups())
        if isinstance(cell, LayerSpec)
    ]
    if host_route():
        mx.eval([(cache.keys, cache.values) for cache in caches])
        states = {i: (cache.keys, cache.values) for i, cache in enumerate(caches)}
        _decode_into(plan, states, pool)
        for cache in caches:
            cache.offset += rows
        return
    for build in plan:
        for span in spans:
            for layer, state in zip(build.layers, build.decoded(span), strict=True):
                caches[layer].update_and_fetch(*state)
    mx.eval([cache.state[:2] for cache in caches])


def _plan(
    pieces: Sequence[tuple[Payload, int]],
    number: int,
    cell: LayerSpec,
    layers: tuple[int, ...],
    length: int,
    headroom: int,
) -> _Build:
    windowed = cell.kind == "window"
    oldest = max(0, length - cell.window) if windowed else 0
    spans: list[tuple[Payload, int, int]] = []
    at = 0
    for payload, used in pieces:
        stored = at + payload.num_tokens - stored_rows(payload, number, cell)
        first, end = max(oldest, stored), at + used
        if first < end:
            spans.append((payload, first - stored, end - first))
        at = end
    rows = sum(count for _, _, count in spans)
    capacity = length - oldest if windowed else capacity_for(length + headroom)
    return _Build(number, cell, layers, capacity, length - oldest - rows, spans)


def _arrays(
    spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], layer: int, cell: StateSpec
) -> ArraysCache:
    cache = ArraysCache(len(cell.arrays))
    if pieces:
        payload, used = pieces[-1]
        cache.state = ([*decode_state(spec, payload, layer, payload.num_tokens - used)], None, None)
    return cache


def _fill(plan: Sequence[_Build], pool: Executor | None) -> dict[int, KVState]:
    """Decode every segment straight into its rows of the final buffers: no copies, no joins."""
    states: dict[int, KVState] = {}
    for build in plan:
        for layer in build.layers:
            keys, values = (mx.zeros(shape, build.dtype) for shape in build.shapes(build.capacity))
            # One by one, so that the first layer's pages are ready while the next are cleared.
            mx.async_eval(keys, values)
            states[layer] = (keys, values)
    _decode_into(plan, states, pool)
    return states


def _decode_into(
    plan: Sequence[_Build], states: Mapping[int, KVState], pool: Executor | None
) -> None:
    """Decode on the host, every layer into its own memory."""

    def fill(build: _Build, first: int, buffers: Sequence[tuple[Array, Array]]) -> None:
        at = build.front
        for payload, start, count in build.spans:
            rows = slice(at, at + count)
            for side, which in enumerate(_SIDES):
                outs = [buffer[side][:, rows] for buffer in buffers]
                decode_rows_into(payload, build.number, build.cell, which, outs, first, start)
            at += count

    pending = []
    for build in plan:
        size = -(-len(build.layers) // helpers())  # the more at once, the fewer calls
        for first in range(0, len(build.layers), size):
            some = build.layers[first : first + size]
            buffers = [(to_host(k)[0], to_host(v)[0]) for k, v in map(states.__getitem__, some)]
            if pool is None:
                fill(build, first, buffers)
            else:
                pending.append(pool.submit(fill, build, first, buffers))
    for job in pending:
        job.result()


def _concatenate(plan: Sequence[_Build]) -> dict[int, KVState]:
    states: dict[int, KVState] = {}
    for build in plan:
        decoded = [build.decoded(span) for span in build.spans]
        back = build.capacity - build.front - sum(n for _, _, n in build.spans)
        front, behind = (
            [[mx.zeros(shape, build.dtype) for shape in build.shapes(rows)]] if rows else []
            for rows in (build.front, back)
        )
        for i, layer in enumerate(build.layers):
            parts = [*front, *(each[i] for each in decoded), *behind]
            keys, values = (mx.concatenate(list(s), axis=2) for s in zip(*parts, strict=True))
            states[layer] = (keys, values)
    mx.eval(list(states.values()))
    return states
