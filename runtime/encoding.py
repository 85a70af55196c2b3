"""Encoding and decoding of segments: float state to a payload's arrays, and back.

Two routes read and write the same bytes: numpy in cache-sized blocks, where the device is the CPU
(MLX takes several times longer there), and MLX operations elsewhere. Both compute
``code * scale + bias`` in float32.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np

from greenroom.runtime import quantize_mlx
from greenroom.runtime.codec import (
    LAST_HIDDEN,
    Codec,
    Payload,
    Tensor,
    check,
    codec_of,
    rows_label,
    sides,
    states_kept,
    stored_rows,
)
from greenroom.runtime.host import MLX_DTYPES, as_float, from_host, host_dtype, host_route, to_host
from greenroom.runtime.quantize import Array, Quantized, TensorFormat, dequantize_into, quantize
from greenroom.runtime.spec import CacheSpec, LayerSpec, StateSpec

KVState = tuple[mx.array, mx.array]
"""K (1, heads, rows, k_dim) and V: all of a segment's rows, or its newest ones from a window."""
KeptStates = Mapping[int, tuple[mx.array, ...]]
"""A layer's states, by how many tokens before the segment's end they were kept."""
LayerState = KVState | KeptStates


class SegmentState(msgspec.Struct, frozen=True):
    """The float state of ``num_tokens`` tokens, for each of the spec's layers."""

    num_tokens: int
    layers: Sequence[LayerState]

    def rows(self, layer: int) -> KVState:
        """K and V of an attention layer. Raises TypeError for one that keeps states."""
        state = self.layers[layer]
        if not isinstance(state, tuple):
            raise TypeError(f"layer {layer} keeps states")
        return state


_ROWS_AT_ONCE = 2048
"""Of all layers and heads together: 512 KiB of float32 at a head size of 64."""


def encode(
    codec: Codec,
    spec: CacheSpec,
    state: SegmentState,
    pool: Executor | None = None,
    last_hidden: Array | None = None,
) -> Payload:
    """Encode one segment. On the MLX thread. States are kept as they are, whatever the codec, and
    so is the ``last_hidden`` of a prompt.

    ``pool`` shares the work between threads where numpy does it.
    """
    mx.eval(state.layers)
    arrays: dict[str, Array] = {}
    for number, (cell, indices) in enumerate(spec.groups()):
        layers = [state.layers[index] for index in indices]
        if isinstance(cell, StateSpec):
            arrays.update(_encode_states(number, cell, layers))
        else:
            arrays.update(_encode_attention(number, cell, layers, codec, pool))
    if last_hidden is not None:
        arrays[LAST_HIDDEN] = last_hidden
    return Payload(codec.label, state.num_tokens, arrays)


def _encode_attention(
    number: int, cell: LayerSpec, layers: Sequence[Any], codec: Codec, pool: Executor | None
) -> Iterator[tuple[str, Array]]:
    rows = layers[0][0].shape[2]
    if not rows:  # a window that has moved past this segment
        return
    label = rows_label(cell, number, rows)
    for side, (which, fmt, dim) in enumerate(sides(cell, codec)):
        if dim:
            tensors = [layer[side] for layer in layers]
            for part, array in _encode_tensors(tensors, fmt, pool).items():
                yield f"{label}.{which}.{part}", array


def _encode_states(
    number: int, cell: StateSpec, layers: Sequence[Any]
) -> Iterator[tuple[str, Array]]:
    for early in sorted(set.intersection(*(set(layer) for layer in layers))):
        stacks = [
            np.stack([to_host(layer[early][i])[0] for layer in layers])
            for i in range(len(cell.arrays))
        ]
        # What has not its final shape yet (an n-gram's first tokens) is not kept.
        if all(s.shape[1:] == a.shape for s, a in zip(stacks, cell.arrays, strict=True)):
            for i, stack in enumerate(stacks):
                yield f"{number}.early{early}.{i}", stack


def _encode_tensors(
    tensors: Sequence[mx.array], fmt: TensorFormat | None, pool: Executor | None
) -> dict[str, Array]:
    if fmt is None:
        return {"raw": np.stack([to_host(tensor)[0] for tensor in tensors])}
    if host_route():
        done = _quantize_on_host([to_host(tensor)[0] for tensor in tensors], fmt, pool)
    else:
        done = [quantize_mlx.quantize(tensor[0], fmt) for tensor in tensors]
    heads = tensors[0].shape[1]

    def stacked(parts: Sequence[Array]) -> Array:
        return np.concatenate(parts).reshape(len(tensors), heads, *parts[0].shape[1:])

    planes = {f"plane{i}": stacked([q.planes[i] for q in done]) for i in range(len(fmt.planes))}
    return {
        **planes,
        "scale": stacked([q.scale for q in done]),
        "bias": stacked([q.bias for q in done]),
    }


def _quantize_on_host(
    tensors: Sequence[Array], fmt: TensorFormat, pool: Executor | None
) -> list[Quantized]:
    """Several layers at once, one behind the other as if they were heads, where they are small."""
    heads, rows, _ = tensors[0].shape
    step = max(1, _ROWS_AT_ONCE // (heads * rows))
    batches = [tensors[at : at + step] for at in range(0, len(tensors), step)]

    def work(batch: Sequence[Array]) -> Quantized:
        floats = [as_float(each) for each in batch]
        return quantize(np.concatenate(floats) if len(floats) > 1 else floats[0], fmt)

    return list((map if pool is None else pool.map)(work, batches))


def decode(spec: CacheSpec, payload: Payload) -> SegmentState:
    """Decode one segment, as a pure function of its bytes. On the MLX thread.

    Raises BadPayload when the arrays do not fit the spec.
    """
    check(spec, payload)
    layers: dict[int, LayerState] = {}
    for number, (cell, indices) in enumerate(spec.groups()):
        if isinstance(cell, StateSpec):
            marks = states_kept(payload, number)
            for index in indices:
                layers[index] = {e: decode_state(spec, payload, index, e) for e in marks}
        else:
            rows = stored_rows(payload, number, cell)
            count = len(indices)
            keys, values = (decode_rows(payload, number, cell, count, w, rows) for w in ("k", "v"))
            layers |= dict(zip(indices, zip(keys, values, strict=True), strict=True))
    return SegmentState(payload.num_tokens, [layers[index] for index in range(len(spec.layers))])


def decode_rows(
    payload: Payload,
    number: int,
    cell: LayerSpec,
    layers: int,
    which: Tensor,
    stop: int,
    start: int = 0,
) -> list[mx.array]:
    """Stored rows [start, stop) of K or V for each of a group's ``layers``.

    Shapes (1, heads, stop - start, dim). Lazy where numpy is not the quicker way.
    """
    dim = cell.k_dim if which == "k" else cell.v_dim
    fmt, arrays = _arrays(payload, number, cell, which)
    if fmt is not None and dim and stop > start and not host_route():
        rows, dtype = stored_rows(payload, number, cell), MLX_DTYPES[cell.dtype]
        made: list[mx.array] = []
        # As many layers at once as are small, whatever is wanted of their rows.
        step = max(1, _ROWS_AT_ONCE // (cell.heads * rows))
        for at in range(0, layers, step):
            quantized = _quantized(arrays, fmt, slice(at, min(at + step, layers)), rows)
            some = quantize_mlx.dequantize(quantized, fmt, stop, dim, dtype)[None, :, start:]
            count = some.shape[1] // cell.heads
            made += [some[:, i * cell.heads : (i + 1) * cell.heads] for i in range(count)]
        return made
    outs = list(np.empty((layers, cell.heads, stop - start, dim), host_dtype(cell.dtype)))
    decode_rows_into(payload, number, cell, which, outs, 0, start)
    return [from_host(out, cell.dtype)[None] for out in outs]


def decode_rows_into(
    payload: Payload,
    number: int,
    cell: LayerSpec,
    which: Tensor,
    outs: Sequence[Array],
    layer: int,
    start: int = 0,
) -> None:
    """Decode stored rows from ``start`` on of K or V into ``outs``, each (heads, rows, dim).

    They are those of layers one behind the other in their group, from its ``layer`` on, and of
    ``host_dtype``. Few rows are decoded for several layers at once, as if they were heads: a call
    costs more than it does for one layer of a short segment. Touches no MLX: it may run on any
    thread.
    """
    if not outs or not outs[0].size:
        return
    heads, rows, dim = outs[0].shape
    fmt, arrays = _arrays(payload, number, cell, which)
    if fmt is None:
        for i, out in enumerate(outs, layer):
            out[...] = arrays["raw"][i, :, start : start + rows]
        return
    stop, stored = start + rows, stored_rows(payload, number, cell)
    step = max(1, _ROWS_AT_ONCE // (heads * stop))
    for at in range(0, len(outs), step):
        some = outs[at : at + step]
        quantized = _quantized(arrays, fmt, slice(layer + at, layer + at + len(some)), stored)
        if len(some) == 1 and not start:
            dequantize_into(quantized, fmt, some[0])
            continue
        whole = np.empty((len(some) * heads, stop, dim), some[0].dtype)
        dequantize_into(quantized, fmt, whole)
        for out, done in zip(some, whole.reshape(len(some), heads, stop, dim), strict=True):
            out[...] = done[:, start:]


def decode_state(spec: CacheSpec, payload: Payload, layer: int, early: int) -> tuple[mx.array, ...]:
    """One layer's state as it was ``early`` tokens before the segment's end."""
    number, row = spec.place(layer)
    cell = spec.layers[layer]
    assert isinstance(cell, StateSpec)
    return tuple(
        from_host(payload.arrays[f"{number}.early{early}.{i}"][row], array.dtype)[None]
        for i, array in enumerate(cell.arrays)
    )


def _arrays(
    payload: Payload, number: int, cell: LayerSpec, which: Tensor
) -> tuple[TensorFormat | None, dict[str, Array]]:
    """The arrays of a group's K or V by the names of their parts, and their format."""
    codec = codec_of(payload)
    label = rows_label(cell, number, stored_rows(payload, number, cell))
    fmt = codec.keys if which == "k" else codec.values
    parts = ("raw",) if fmt is None else fmt.parts
    names = {part: f"{label}.{which}.{part}" for part in parts}
    # Of no rows, or none that are wide, nothing is stored.
    return fmt, {p: payload.arrays[name] for p, name in names.items() if name in payload.arrays}


def _quantized(
    arrays: Mapping[str, Array], fmt: TensorFormat, layers: slice, rows: int
) -> Quantized:
    """Some of a group's layers, one behind the other as if they were heads."""

    def part(name: str) -> Array:
        some = arrays[name][layers]
        return some.reshape(-1, *some.shape[2:])

    planes = tuple(part(f"plane{i}") for i in range(len(fmt.planes)))
    return Quantized(rows, planes, part("scale"), part("bias"))
