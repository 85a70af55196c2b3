"""Surgery on mlx-lm's plain per-sequence caches: cut rows out of them, and build them from rest.

Everything here runs on the MLX thread; only the decoding of bytes may be shared with a pool.
"""

from collections.abc import Sequence
from concurrent.futures import Executor

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from greenroom.runtime.codec import (
    MLX_DTYPES,
    LayerState,
    Payload,
    check,
    decode_tensor,
    decode_tensor_into,
    host_route,
    to_host,
)
from greenroom.runtime.quantize import Array
from greenroom.runtime.spec import CacheSpec


def slice_states(caches: Sequence[KVCache], start: int, stop: int) -> list[LayerState]:
    """Rows [start, stop) of every layer: K (1, heads, stop - start, k_dim) and V, lazily.

    Raises ValueError when a cache holds fewer than ``stop`` tokens.
    """
    states: list[LayerState] = []
    for cache in caches:
        if cache.keys is None or cache.values is None or not 0 <= start < stop <= cache.offset:
            raise ValueError(f"rows [{start}, {stop}) of a cache with {cache.offset} tokens")
        states.append((cache.keys[..., start:stop, :], cache.values[..., start:stop, :]))
    return states


def nbytes(caches: Sequence[KVCache]) -> int:
    """Bytes allocated by the caches, headroom included."""
    return sum(cache.nbytes for cache in caches)


def capacity_for(num_tokens: int) -> int:
    """Rows to allocate for ``num_tokens``: whole steps, as KVCache itself grows."""
    step: int = KVCache.step
    return -(-num_tokens // step) * step


def restore(
    spec: CacheSpec,
    pieces: Sequence[tuple[Payload, int]],
    headroom: int = 0,
    pool: Executor | None = None,
) -> list[KVCache]:
    """Caches that hold the first ``used`` rows of each payload, in order.

    ``headroom`` more tokens fit without a reallocation. The rows are bit for bit those of
    ``decode``. ``pool`` shares the work between threads where numpy does it. Raises BadPayload
    when a payload does not fit the spec, ValueError when ``used`` is not within it.
    """
    for payload, used in pieces:
        check(spec, payload)
        if not 0 < used <= payload.num_tokens:
            raise ValueError(f"{used} rows of a segment of {payload.num_tokens}")
    length = sum(used for _, used in pieces)
    if not length:
        return [KVCache() for _ in spec.layers]
    capacity = capacity_for(length + headroom)
    if host_route():
        states = _fill(spec, pieces, capacity, pool)
    else:
        states = _concatenate(spec, pieces, capacity - length)
    caches = []
    for keys, values in states:
        cache = KVCache()
        cache.keys, cache.values, cache.offset = keys, values, length
        caches.append(cache)
    return caches


def _fill(
    spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], capacity: int, pool: Executor | None
) -> list[LayerState]:
    """Decode every segment straight into its rows of the final buffers: no copies, no joins."""
    states: list[LayerState] = []
    for layer in spec.layers:
        dtype = MLX_DTYPES[layer.dtype]
        keys = mx.zeros((1, layer.heads, capacity, layer.k_dim), dtype)
        values = mx.zeros((1, layer.heads, capacity, layer.v_dim), dtype)
        # One evaluation per layer, so that the first pages are ready while the next are cleared.
        mx.async_eval(keys, values)
        states.append((keys, values))

    def fill(index: int, keys: Array, values: Array) -> None:
        at = 0
        for payload, used in pieces:
            decode_tensor_into(spec, payload, index, "k", keys[:, at : at + used])
            decode_tensor_into(spec, payload, index, "v", values[:, at : at + used])
            at += used

    pending = []
    for index, (keys, values) in enumerate(states):
        views = (to_host(keys)[0], to_host(values)[0])
        if pool is None:
            fill(index, *views)
        else:
            pending.append(pool.submit(fill, index, *views))
    for job in pending:
        job.result()
    return states


def _concatenate(
    spec: CacheSpec, pieces: Sequence[tuple[Payload, int]], spare: int
) -> list[LayerState]:
    states: list[LayerState] = []
    for index, layer in enumerate(spec.layers):
        dtype = MLX_DTYPES[layer.dtype]
        keys = [decode_tensor(spec, payload, index, "k", used) for payload, used in pieces]
        values = [decode_tensor(spec, payload, index, "v", used) for payload, used in pieces]
        if spare:
            keys.append(mx.zeros((1, layer.heads, spare, layer.k_dim), dtype))
            values.append(mx.zeros((1, layer.heads, spare, layer.v_dim), dtype))
        states.append((mx.concatenate(keys, axis=2), mx.concatenate(values, axis=2)))
    mx.eval(states)
    return states
