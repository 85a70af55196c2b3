"""Affine quantization of K and V into bit planes, in numpy, block by block in cache.

Codes of 5 and 6 bits are kept as a plane of 4 bits and a plane of the rest. A plane packs rows that
lie far apart (row ``t`` beside row ``t + rows / 2``), so that unpacking is a mask and a shift over
contiguous bytes; on a CPU this decodes several times faster than codes packed within a row.

Rows are tokens. All of it is elementwise per group, except the rotation, which works on blocks of
fixed shape: the same bytes give the same bits however many of the rows are wanted.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

GROUP = 64
_BLOCK = 512  # rows worked on at once: 128 KiB of float32 at a head size of 64
_SMALLEST_SCALE = 2.0**-24  # the least positive float16
_LARGEST = 65504.0  # the largest float16
_PLANES = {4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}


class TensorFormat(msgspec.Struct, frozen=True):
    """How K, or V, is stored: ``bits`` per code, one float16 scale and bias per group of 64.

    ``axis`` "token" groups the elements of one token's head, "channel" groups 64 tokens of one
    channel (keys have channels that are always large). ``rotated`` spreads outliers over the head
    by a Hadamard matrix first. ``anchored`` makes zero a code, as ``mx.quantize`` does.
    """

    bits: Literal[4, 5, 6, 8]
    axis: Literal["token", "channel"] = "token"
    rotated: bool = False
    anchored: bool = False

    @property
    def planes(self) -> tuple[int, ...]:
        """Bits of each plane, the low bits first."""
        return _PLANES[self.bits]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the arrays."""
        return (*(f"plane{i}" for i in range(len(self.planes))), "scale", "bias")


class Quantized(msgspec.Struct, frozen=True):
    """``rows`` tokens of one tensor with ``heads`` heads.

    ``planes[i]`` has shape (heads, ceil(rows * bits / 8), width), ``scale`` and ``bias`` are
    float16 of shape (heads, rows, groups) or, by channel, (heads, ceil(rows / 64), width).
    """

    rows: int
    planes: tuple[Bytes, ...]
    scale: npt.NDArray[np.float16]
    bias: npt.NDArray[np.float16]


def group_shape(dim: int) -> tuple[int, int]:
    """(groups, elements per group) that cover a head of ``dim``: equal groups of at most 64."""
    groups = -(-dim // GROUP)
    return groups, -(-dim // groups)


def part_shapes(
    fmt: TensorFormat, heads: int, rows: int, dim: int
) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
    """Shape and type of each array of a ``Quantized``, by the name of its part."""
    groups, size = group_shape(dim)
    width = groups * size if fmt.axis == "token" else dim
    planes = {
        f"plane{i}": ((heads, -(-rows // (8 // bits)), width), np.dtype(np.uint8))
        for i, bits in enumerate(fmt.planes)
    }
    shape = (heads, rows, groups) if fmt.axis == "token" else (heads, -(-rows // GROUP), width)
    half = np.dtype(np.float16)
    return {**planes, "scale": (shape, half), "bias": (shape, half)}


def rotation(dim: int) -> Floats:
    """A symmetric orthonormal (dim, dim) matrix: Hadamard blocks of the largest power of two."""
    block = np.ones((1, 1), np.float32)
    while dim % (2 * len(block)) == 0:
        block = np.block([[block, block], [block, -block]])
    block *= np.float32(len(block) ** -0.5)
    return np.kron(np.eye(dim // len(block), dtype=np.float32), block)


def rotate(x: Floats, matrix: Floats) -> Floats:
    """``x @ matrix`` for x (rows, width), in products that stay on the calling thread.

    numpy's BLAS shares larger ones among threads that spin, seconds long on a busy machine.
    """
    rows, width = x.shape
    step = max(1, 2**18 // width**2)  # OpenBLAS keeps m * n * k <= 2**18 on one thread
    whole = rows - rows % step
    turned = np.empty_like(x)
    parts = (-1, step, width)
    np.matmul(x[:whole].reshape(parts), matrix, out=turned[:whole].reshape(parts))
    np.matmul(x[whole:], matrix, out=turned[whole:])
    return turned


def quantize(x: Floats, fmt: TensorFormat) -> Quantized:
    """Quantize ``x`` of shape (heads, rows, dim)."""
    heads, rows, dim = x.shape
    x = _padded(x, fmt)
    width = x.shape[2]
    if fmt.rotated:
        x = np.stack([rotate(head, rotation(width)) for head in x])
    codes = np.empty((heads, rows, width), np.uint8)
    groups = group_shape(dim)[0]
    shape = (heads, rows, groups) if fmt.axis == "token" else (heads, -(-rows // GROUP), width)
    scale, bias = np.empty(shape, np.float16), np.empty(shape, np.float16)
    for part in _together(heads, rows):
        for start, stop in _runs(rows, fmt):
            at = _groups(start, stop, fmt)
            _quantize_run(
                x[part, start:stop], fmt, codes[part, start:stop], scale[part, at], bias[part, at]
            )
    return Quantized(rows, pack(codes, fmt), scale, bias)


def dequantize_into(q: Quantized, fmt: TensorFormat, out: Array) -> None:
    """Write the first rows of ``q`` into ``out`` of shape (heads, used, dim).

    ``out`` is float32, float16, or uint16, which stands for the bits of a bfloat16.
    """
    heads, used, dim = out.shape
    width = q.planes[0].shape[2]
    matrix = rotation(width) if fmt.rotated else None
    direct = out.dtype == np.float32 and matrix is None and width == dim
    scale, bias = q.scale.astype(np.float32), q.bias.astype(np.float32)
    # A rotated block is always whole: a product of fewer rows may differ in its last bits.
    parts = _together(heads, q.rows if matrix is None else _BLOCK)
    work = np.zeros((parts[0].stop, _BLOCK if fmt.rotated else min(q.rows, _BLOCK), width), "f4")
    for part in parts:
        codes = _unpack([plane[part] for plane in q.planes], q.rows, fmt)
        for start, stop in _runs(q.rows, fmt):
            keep = min(stop, used) - start
            if keep <= 0:
                break
            at = _groups(start, stop, fmt)
            in_place = direct and keep == stop - start
            values = out[part, start:stop] if in_place else work[: len(codes), : stop - start]
            _scale(codes[:, start:stop], scale[part, at], bias[part, at], values, fmt.axis)
            if matrix is not None:
                values = rotate(work[0], matrix)[None]
            if not in_place:
                _store(values[:, :keep, :dim], out[part, start : start + keep])


def bfloat16_to_float(bits: npt.NDArray[np.uint16]) -> Floats:
    """The float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _store(values: Floats, out: Array) -> None:
    if out.dtype == np.uint16:
        bits = np.ascontiguousarray(values).view(np.uint32)
        out[...] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # round half to even
    else:
        out[...] = values


def _padded(x: Floats, fmt: TensorFormat) -> Floats:
    dim = x.shape[2]
    groups, size = group_shape(dim)
    extra = groups * size - dim
    if fmt.axis == "channel" or not extra:
        return x
    return np.pad(x, ((0, 0), (0, 0), (0, extra)), mode="edge")


def _runs(rows: int, fmt: TensorFormat) -> list[tuple[int, int]]:
    """Row ranges of whole groups; a last incomplete group of tokens stands alone."""
    whole = rows if fmt.axis == "token" else rows - rows % GROUP
    runs = [(start, min(start + _BLOCK, whole)) for start in range(0, whole, _BLOCK)]
    return runs if whole == rows else [*runs, (whole, rows)]


def _together(heads: int, rows: int) -> list[slice]:
    """Heads to work on at once: one where it fills a block, else as many as do."""
    step = max(1, _BLOCK // max(1, rows))
    return [slice(start, min(start + step, heads)) for start in range(0, heads, step)]


def _groups(start: int, stop: int, fmt: TensorFormat) -> slice:
    """Where the scales of these rows are."""
    step = 1 if fmt.axis == "token" else GROUP
    return slice(start // step, -(-stop // step))


def _grouped(x: Array, scale: Array, axis: str) -> tuple[Array, tuple[int, ...]]:
    """``x`` (heads, rows, width) as groups, and the shape in which ``scale`` spreads over them."""
    heads, rows, width = x.shape
    count = scale.shape[2 if axis == "token" else 1]
    if axis == "token":
        return x.reshape(heads, rows, count, -1), (heads, rows, count, 1)
    return x.reshape(heads, count, -1, width), (heads, count, 1, width)


def _quantize_run(x: Floats, fmt: TensorFormat, codes: Bytes, scale: Array, bias: Array) -> None:
    """Fill ``codes``, ``scale`` and ``bias`` from whole groups of rows.

    The codes are computed against the rounded float16 scale and bias, which absorbs their error.
    """
    groups, shape = _grouped(x, scale, fmt.axis)
    reduced = 2 if fmt.axis == "channel" else 3
    low, high = groups.min(axis=reduced), groups.max(axis=reduced)
    levels = 2**fmt.bits - 1
    step = _anchored(low, high, levels) if fmt.anchored else ((high - low) / levels, low)
    scale[...] = np.clip(step[0], -_LARGEST, _LARGEST)
    bias[...] = np.clip(step[1], -_LARGEST, _LARGEST)
    scale[scale == 0] = _SMALLEST_SCALE
    work = groups - bias.astype(np.float32).reshape(shape)
    work /= scale.astype(np.float32).reshape(shape)
    np.rint(work, out=work)
    np.clip(work, 0, levels, out=work)
    codes[...] = work.reshape(codes.shape)


def _anchored(low: Floats, high: Floats, levels: int) -> tuple[Floats, Floats]:
    """Scale and bias by the rule of ``mx.quantize``: the edge farther from zero, and zero, are
    codes."""
    from_low = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / levels, 1e-7)
    scale = np.where(from_low, scale, -scale)
    edge = np.where(from_low, low, high)
    zero_code = np.rint(edge / scale)
    is_zero = zero_code == 0
    scale = np.where(is_zero, scale, edge / np.where(is_zero, 1, zero_code))
    return scale, np.where(is_zero, 0, edge)


def _scale(codes: Bytes, scale: Floats, bias: Floats, out: Floats, axis: str) -> None:
    groups, shape = _grouped(codes, scale, axis)
    target = out.reshape(groups.shape, copy=False)
    np.multiply(groups, scale.reshape(shape), out=target)
    target += bias.reshape(shape)


def pack(codes: Bytes, fmt: TensorFormat) -> tuple[Bytes, ...]:
    """Codes (heads, rows, width) as planes (heads, ceil(rows * bits / 8), width)."""
    heads, rows, width = codes.shape
    planes: list[Bytes] = []
    shift = 0
    for bits in fmt.planes:
        share = 8 // bits
        depth = -(-rows // share)
        padded = np.zeros((heads, share * depth, width), np.uint8)
        padded[:, :rows] = (codes >> shift) & ((1 << bits) - 1)
        parts = padded.reshape(heads, share, depth, width)
        plane = parts[:, 0].copy()
        for part in range(1, share):
            plane |= parts[:, part] << (part * bits)
        planes.append(plane)
        shift += bits
    return tuple(planes)


def _unpack(planes: Sequence[Bytes], rows: int, fmt: TensorFormat) -> Bytes:
    """Codes (heads, rows, width) from planes."""
    if fmt.bits == 8:
        return planes[0]
    codes: Bytes | None = None
    shift = 0
    for plane, bits in zip(planes, fmt.planes, strict=True):
        share, depth, mask = 8 // bits, plane.shape[1], (1 << bits) - 1
        unpacked = np.empty((len(plane), share * depth, plane.shape[2]), np.uint8)
        for part in range(share):
            target = unpacked[:, part * depth : (part + 1) * depth]
            if part == share - 1:  # nothing above it to mask away
                np.right_shift(plane, part * bits, out=target)
            else:
                np.bitwise_and(plane >> (part * bits) if part else plane, mask, out=target)
        if shift:
            unpacked <<= shift
        shift += bits
        if codes is None:
            codes = unpacked[:, :rows]
        else:
            codes |= unpacked[:, :rows]
    assert codes is not None  # every format has a plane
    return codes
