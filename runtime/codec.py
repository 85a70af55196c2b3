"""Codecs: a closed table of the ways in which attention state is kept at rest.

The name and version of a codec are in every segment, and a segment is decoded by what it says.
Nothing in a file picks code. Layers of equal shape are stacked into one array per plane, which
keeps headers small and file writes few. What each codec costs is in docs/memory.md,
measured by ``benchmarks/quality.py``.

Two routes read and write the same bytes: numpy in cache-sized blocks, where the device is the CPU
(MLX takes several times longer there), and MLX operations elsewhere. Both compute
``code * scale + bias`` in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import mlx.core as mx
import msgspec
import numpy as np

from greenroom.runtime import quantize_mlx
from greenroom.runtime.errors import GreenroomError, SettingsError
from greenroom.runtime.quantize import (
    Array,
    Quantized,
    TensorFormat,
    bfloat16_to_float,
    dequantize_into,
    part_shapes,
    quantize,
)
from greenroom.runtime.spec import CacheSpec, DTypeName

LayerState = tuple[mx.array, mx.array]
Tensor = Literal["k", "v"]

MLX_DTYPES: Mapping[DTypeName, mx.Dtype] = {
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
}


class BadPayload(GreenroomError):
    """A payload does not fit its codec or the model's spec; ``array`` names the first misfit.

    Raised for a file that is damaged or foreign though its digest holds; it is never decoded.
    """

    def __init__(self, message: str, *, array: str) -> None:
        super().__init__(message)
        self.array = array


class Payload(msgspec.Struct, frozen=True):
    """One segment's encoded state: ``num_tokens`` rows in named arrays, as they are on disk.

    Array ``<group>.<k|v>.<part>`` stacks the layers of one shape in the order of
    ``CacheSpec.groups``; parts are ``raw``, or ``plane0``…, ``scale`` and ``bias``, shapes
    (layers, heads, …) as in ``Quantized``.
    """

    codec: str
    num_tokens: int
    arrays: Mapping[str, Array]

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


class Codec(msgspec.Struct, frozen=True):
    """How keys and values are stored; None is the model's own floats."""

    name: str
    version: int
    keys: TensorFormat | None
    values: TensorFormat | None

    @property
    def label(self) -> str:
        """What a segment and a file carry: name and version."""
        return f"{self.name}/{self.version}"


_TABLE = (
    Codec("float", 1, None, None),
    Codec("q8", 1, TensorFormat(8), TensorFormat(8)),
    Codec("q4", 1, TensorFormat(4, anchored=True), TensorFormat(4, anchored=True)),
    Codec("k8v4", 1, TensorFormat(8), TensorFormat(4)),
    Codec("k6v5", 1, TensorFormat(6), TensorFormat(5)),
    Codec("k5cv5", 1, TensorFormat(5, axis="channel"), TensorFormat(5)),
    Codec("k5v4r", 1, TensorFormat(5, rotated=True), TensorFormat(4, rotated=True)),
)
CODECS: Mapping[str, Codec] = {codec.name: codec for codec in _TABLE}
_BY_LABEL: Mapping[str, Codec] = {codec.label: codec for codec in _TABLE}
# Measured: the fewest bytes without a rotation, which nearly doubles a decode's time.
DEFAULT_CODEC = "k5cv5"


def codec_named(name: str) -> Codec:
    """The newest codec called ``name``. Raises SettingsError for an unknown one."""
    codec = CODECS.get(name)
    if codec is None:
        raise SettingsError(f"unknown codec {name!r}: choose one of {', '.join(CODECS)}")
    return codec


def codec_labelled(label: str) -> Codec | None:
    """The codec that wrote a segment, or None when this version of greenroom has it not."""
    return _BY_LABEL.get(label)


def encode(codec: Codec, spec: CacheSpec, states: Sequence[LayerState]) -> Payload:
    """Encode one segment: per layer K (1, heads, tokens, k_dim) and V. On the MLX thread."""
    mx.eval(states)
    arrays: dict[str, Array] = {}
    for number, (_, indices) in enumerate(spec.groups()):
        for side, (which, fmt) in enumerate((("k", codec.keys), ("v", codec.values))):
            parts = _encode_tensors([states[index][side] for index in indices], fmt)
            arrays.update({f"{number}.{which}.{part}": array for part, array in parts.items()})
    return Payload(codec.label, int(states[0][0].shape[2]), arrays)


def _encode_tensors(tensors: Sequence[mx.array], fmt: TensorFormat | None) -> dict[str, Array]:
    if fmt is None:
        return {"raw": np.stack([to_host(tensor)[0] for tensor in tensors])}
    if host_route():
        done = [quantize(_as_float(to_host(tensor)[0]), fmt) for tensor in tensors]
    else:
        done = [quantize_mlx.quantize(tensor[0], fmt) for tensor in tensors]
    planes: dict[str, Array] = {
        f"plane{i}": np.stack([q.planes[i] for q in done]) for i in range(len(fmt.planes))
    }
    return {
        **planes,
        "scale": np.stack([q.scale for q in done]),
        "bias": np.stack([q.bias for q in done]),
    }


def decode(spec: CacheSpec, payload: Payload) -> list[LayerState]:
    """Decode one segment, as a pure function of its bytes. On the MLX thread.

    Raises BadPayload when the arrays do not fit the spec.
    """
    check(spec, payload)
    rows = payload.num_tokens
    return [
        (decode_tensor(spec, payload, i, "k", rows), decode_tensor(spec, payload, i, "v", rows))
        for i in range(len(spec.layers))
    ]


def decode_tensor(
    spec: CacheSpec, payload: Payload, layer: int, which: Tensor, used: int
) -> mx.array:
    """The first ``used`` rows of one layer's K or V, shape (1, heads, used, dim)."""
    shape = spec.layers[layer]
    dim = shape.k_dim if which == "k" else shape.v_dim
    fmt, part = _parts(spec, payload, layer, which)
    if fmt is not None and not host_route():
        dtype = MLX_DTYPES[shape.dtype]
        return quantize_mlx.dequantize(_quantized(payload, fmt, part), fmt, used, dim, dtype)[None]
    out = np.empty((shape.heads, used, dim), host_dtype(shape.dtype))
    decode_tensor_into(spec, payload, layer, which, out)
    array = mx.array(out)[None]
    return array.view(mx.bfloat16) if shape.dtype == "bfloat16" else array


def decode_tensor_into(
    spec: CacheSpec, payload: Payload, layer: int, which: Tensor, out: Array
) -> None:
    """Decode the first rows of one layer's K or V into ``out`` (heads, used, dim).

    ``out`` is of ``host_dtype``. Touches no MLX: it may run on any thread.
    """
    fmt, part = _parts(spec, payload, layer, which)
    if fmt is None:
        out[...] = part("raw")[:, : out.shape[1]]
    else:
        dequantize_into(_quantized(payload, fmt, part), fmt, out)


def check(spec: CacheSpec, payload: Payload) -> None:
    """Raise BadPayload unless every array has the shape and type that codec and spec demand."""
    codec = _codec_of(payload)
    rows = payload.num_tokens
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for number, (layer, indices) in enumerate(spec.groups()):
        for which, fmt, dim in (
            ("k", codec.keys, layer.k_dim),
            ("v", codec.values, layer.v_dim),
        ):
            shapes = (
                {"raw": ((layer.heads, rows, dim), host_dtype(layer.dtype))}
                if fmt is None
                else part_shapes(fmt, layer.heads, rows, dim)
            )
            for part, (shape, dtype) in shapes.items():
                wanted[f"{number}.{which}.{part}"] = ((len(indices), *shape), dtype)
    for name, (shape, dtype) in wanted.items():
        array = payload.arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise BadPayload(f"{name} should be {dtype} {shape}, found {found}", array=name)
    if len(payload.arrays) != len(wanted):
        extra = min(payload.arrays.keys() - wanted.keys())
        raise BadPayload(f"{extra} belongs to no layer", array=extra)


def _parts(
    spec: CacheSpec, payload: Payload, layer: int, which: Tensor
) -> tuple[TensorFormat | None, Callable[[str], Array]]:
    codec = _codec_of(payload)
    number, row = spec.place(layer)
    return (
        codec.keys if which == "k" else codec.values,
        lambda part: payload.arrays[f"{number}.{which}.{part}"][row],
    )


def _quantized(payload: Payload, fmt: TensorFormat, part: Callable[[str], Any]) -> Quantized:
    planes = tuple(part(f"plane{i}") for i in range(len(fmt.planes)))
    return Quantized(payload.num_tokens, planes, part("scale"), part("bias"))


def host_route() -> bool:
    """Whether numpy on the host is the quicker way to encode and decode: it is on MLX's CPU."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def host_dtype(name: DTypeName) -> np.dtype[Any]:
    """The numpy type that holds a layer's floats; uint16 stands for bfloat16."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def to_host(array: mx.array) -> Array:
    """An evaluated MLX array as numpy, without a copy where the device shares memory.

    bfloat16, which numpy lacks, becomes its bits as uint16.
    """
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.array(array, copy=False)


def _as_float(tensor: Array) -> Any:
    if tensor.dtype == np.uint16:
        return bfloat16_to_float(tensor)
    return tensor.astype(np.float32, copy=False)


def _codec_of(payload: Payload) -> Codec:
    codec = codec_labelled(payload.codec)
    if codec is None:
        raise BadPayload(f"unknown codec {payload.codec!r}", array="")
    return codec
