"""The arithmetic of ``quantize`` in MLX operations, for devices where numpy would be the slow way.

Same formats, same bytes. All of it runs on the MLX thread.
"""

import mlx.core as mx
import numpy as np

from greenroom.runtime.quantize import (
    GROUP,
    Quantized,
    TensorFormat,
    group_shape,
    pack,
    rotation,
)

_LARGEST = 65504.0
_SMALLEST_SCALE = 2.0**-24


def quantize(x: mx.array, fmt: TensorFormat) -> Quantized:
    """Quantize ``x`` of shape (heads, rows, dim) and any float type."""
    heads, rows, dim = x.shape
    x = x.astype(mx.float32)
    groups, size = group_shape(dim)
    width = groups * size if fmt.axis == "token" else dim
    if width > dim:
        x = mx.pad(x, [(0, 0), (0, 0), (0, width - dim)], mode="edge")
    if fmt.rotated:
        x = x @ mx.array(rotation(width))
    if fmt.axis == "token":
        grouped, axis, shape = x.reshape(heads, rows, groups, size), 3, (heads, rows, groups)
    else:
        blocks = -(-rows // GROUP)
        x = mx.pad(x, [(0, 0), (0, blocks * GROUP - rows), (0, 0)], mode="edge")
        grouped, axis, shape = x.reshape(heads, blocks, GROUP, width), 2, (heads, blocks, width)
    low, high = grouped.min(axis, keepdims=True), grouped.max(axis, keepdims=True)
    levels = 2**fmt.bits - 1
    scale, bias = _anchored(low, high, levels) if fmt.anchored else ((high - low) / levels, low)
    scale = mx.clip(scale, -_LARGEST, _LARGEST).astype(mx.float16)
    bias = mx.clip(bias, -_LARGEST, _LARGEST).astype(mx.float16)
    scale = mx.where(scale == 0, mx.array(_SMALLEST_SCALE, mx.float16), scale)
    codes = mx.round((grouped - bias.astype(mx.float32)) / scale.astype(mx.float32))
    codes = mx.clip(codes, 0, levels).astype(mx.uint8).reshape(heads, -1, width)[:, :rows]
    mx.eval(codes, scale, bias)
    return Quantized(
        rows,
        pack(np.array(codes), fmt),
        np.array(scale.reshape(shape)),
        np.array(bias.reshape(shape)),
    )


def dequantize(q: Quantized, fmt: TensorFormat, used: int, dim: int, dtype: mx.Dtype) -> mx.array:
    """The first ``used`` rows of ``q``, lazily, shape (heads, used, dim)."""
    heads, _, width = q.planes[0].shape
    codes = _unpack(q, fmt)
    scale, bias = (mx.array(a).astype(mx.float32) for a in (q.scale, q.bias))
    if fmt.axis == "token":
        codes = codes.reshape(heads, q.rows, scale.shape[2], -1)
        scale, bias = scale[..., None], bias[..., None]
    else:
        codes = mx.pad(codes, [(0, 0), (0, scale.shape[1] * GROUP - q.rows), (0, 0)])
        codes = codes.reshape(heads, scale.shape[1], GROUP, width)
        scale, bias = scale[:, :, None], bias[:, :, None]
    values = codes.astype(mx.float32) * scale + bias
    values = values.reshape(heads, -1, width)[:, : q.rows]
    if fmt.rotated:
        # All rows, whatever is used: a product of fewer rows may differ in its last bits.
        values = values @ mx.array(rotation(width))
    return values[:, :used, :dim].astype(dtype)


def _anchored(low: mx.array, high: mx.array, levels: int) -> tuple[mx.array, mx.array]:
    """See ``quantize._anchored``."""
    from_low = mx.abs(low) > mx.abs(high)
    scale = mx.maximum((high - low) / levels, 1e-7)
    scale = mx.where(from_low, scale, -scale)
    edge = mx.where(from_low, low, high)
    zero_code = mx.round(edge / scale)
    is_zero = zero_code == 0
    scale = mx.where(is_zero, scale, edge / mx.where(is_zero, 1.0, zero_code))
    return scale, mx.where(is_zero, 0.0, edge)


def _unpack(q: Quantized, fmt: TensorFormat) -> mx.array:
    codes: mx.array | None = None
    shift = 0
    for plane, bits in zip(q.planes, fmt.planes, strict=True):
        packed, mask = mx.array(plane), (1 << bits) - 1
        parts = [(packed >> (part * bits)) & mask for part in range(8 // bits)]
        unpacked = mx.concatenate(parts, axis=1)[:, : q.rows] << shift
        codes = unpacked if codes is None else codes | unpacked
        shift += bits
    assert codes is not None  # every format has a plane
    return codes
