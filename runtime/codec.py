"""Codecs: a closed table of the ways in which attention state is kept at rest.

The name and version of a codec are in every segment, and a segment is decoded by what it says.
Nothing in a file picks code. Layers of equal shape are stacked into one array per plane, which
keeps headers small and file writes few. What each codec costs is in docs/memory.md,
measured by ``benchmarks/quality.py``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from greenroom.runtime.errors import GreenroomError, SettingsError
from greenroom.runtime.host import MLX_DTYPES, host_dtype
from greenroom.runtime.quantize import Array, TensorFormat, part_shapes
from greenroom.runtime.resume import Link
from greenroom.runtime.spec import CacheSpec, LayerSpec, StateSpec

Tensor = Literal["k", "v"]

LAST_HIDDEN = "last_hidden"
"""The array that holds what a prompt's answer begins with; see ``Payload``."""
_HIDDEN_TYPES = frozenset(host_dtype(name) for name in MLX_DTYPES)

_LABEL = re.compile(r"(\d{1,4})\.(last|early)(\d{1,9})\.")


class BadPayload(GreenroomError):
    """A payload does not fit its codec or the model's spec; ``array`` names the first misfit.

    Raised for a file that is damaged or foreign though its digest holds; it is never decoded.
    """

    def __init__(self, message: str, *, array: str) -> None:
        super().__init__(message)
        self.array = array


class Payload(msgspec.Struct, frozen=True):
    """One segment's encoded state, of ``num_tokens`` tokens, in named arrays as they are on disk.

    An array stacks the layers of one shape, a group, in the order of ``CacheSpec.groups``. Its
    name is ``<group>.<k|v>.<part>`` for full attention and ``<group>.last<rows>.<k|v>.<part>`` for
    the newest rows of a window; parts are ``raw``, or ``plane0``…, ``scale`` and ``bias``, shapes
    (layers, heads, …) as in ``Quantized``. Array ``<n>`` of the states kept that many tokens
    before the segment's end is ``<group>.early<tokens>.<n>``. At the end of a prompt,
    ``last_hidden`` ``(D,)`` is what the model's head has made the logits of.
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


def is_passing(array: str) -> bool:
    """Whether an array holds a window's tail or states: what later segments supersede."""
    return _LABEL.match(array) is not None


def stored_rows(payload: Payload, number: int, cell: LayerSpec) -> int:
    """How many of the segment's newest rows are stored for a group: all for full attention."""
    return payload.num_tokens if cell.kind == "full" else _tail(payload, number)


def link(spec: CacheSpec, payload: Payload, used: int) -> Link:
    """What the segment holds, for deciding where a chain can be taken up again."""
    tails: dict[int, int] = {}
    states: set[int] | None = None
    for number, (cell, _) in enumerate(spec.groups()):
        if isinstance(cell, StateSpec):
            kept = {payload.num_tokens - early for early in states_kept(payload, number)}
            states = kept if states is None else states & kept
        elif cell.kind == "window":
            tail = _tail(payload, number)
            tails[cell.window] = min(tail, tails.get(cell.window, tail))
    answered = LAST_HIDDEN in payload.arrays
    return Link(payload.num_tokens, used, tails, tuple(sorted(states or ())), answered)


def check(spec: CacheSpec, payload: Payload) -> None:
    """Raise BadPayload unless every array has the shape and type that codec and spec demand."""
    codec = codec_of(payload)
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for number, (cell, indices) in enumerate(spec.groups()):
        shapes = (
            _state_shapes(payload, number, cell)
            if isinstance(cell, StateSpec)
            else _attention_shapes(payload, number, cell, codec)
        )
        for name, shape, dtype in shapes:
            wanted[name] = ((len(indices), *shape), dtype)
    for name, (shape, dtype) in wanted.items():
        array = payload.arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise BadPayload(f"{name} should be {dtype} {shape}, found {found}", array=name)
    hidden = payload.arrays.get(LAST_HIDDEN)
    if hidden is not None:
        if hidden.ndim != 1 or hidden.dtype not in _HIDDEN_TYPES:
            found = f"found {hidden.dtype} {hidden.shape}"
            raise BadPayload(f"{LAST_HIDDEN} should be a row of floats, {found}", array=LAST_HIDDEN)
        wanted[LAST_HIDDEN] = (hidden.shape, hidden.dtype)
    if len(payload.arrays) != len(wanted):
        extra = min(payload.arrays.keys() - wanted.keys())
        raise BadPayload(f"{extra} belongs to no layer", array=extra)


def _attention_shapes(
    payload: Payload, number: int, cell: LayerSpec, codec: Codec
) -> Iterator[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    rows = stored_rows(payload, number, cell)
    if cell.kind == "window" and rows > min(payload.num_tokens, cell.window):
        raise BadPayload(f"{rows} rows of a window of {cell.window}", array=f"{number}.last{rows}")
    label = rows_label(cell, number, rows)
    for which, fmt, dim in sides(cell, codec):
        if not rows or not dim:
            continue
        shapes = (
            {"raw": ((cell.heads, rows, dim), host_dtype(cell.dtype))}
            if fmt is None
            else part_shapes(fmt, cell.heads, rows, dim)
        )
        for part, (shape, dtype) in shapes.items():
            yield f"{label}.{which}.{part}", shape, dtype


def _state_shapes(
    payload: Payload, number: int, cell: StateSpec
) -> Iterator[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    for early in states_kept(payload, number):
        for i, array in enumerate(cell.arrays):
            yield f"{number}.early{early}.{i}", array.shape, host_dtype(array.dtype)


def sides(
    cell: LayerSpec, codec: Codec
) -> tuple[tuple[Tensor, TensorFormat | None, int], tuple[Tensor, TensorFormat | None, int]]:
    """K and V: which, in what format, how wide."""
    return ("k", codec.keys, cell.k_dim), ("v", codec.values, cell.v_dim)


def rows_label(cell: LayerSpec, number: int, rows: int) -> str:
    """What the names of an attention group's arrays begin with; see ``Payload``."""
    return f"{number}" if cell.kind == "full" else f"{number}.last{rows}"


def _labels(payload: Payload, number: int, word: str) -> set[int]:
    found = [_LABEL.match(name) for name in payload.arrays]
    return {int(m[3]) for m in found if m and (int(m[1]), m[2]) == (number, word)}


def _tail(payload: Payload, number: int) -> int:
    """How many rows of a window the payload holds."""
    return max(_labels(payload, number, "last"), default=0)


def states_kept(payload: Payload, number: int) -> list[int]:
    """How many tokens before the segment's end states were kept."""
    return sorted(e for e in _labels(payload, number, "early") if e < payload.num_tokens)


def codec_of(payload: Payload) -> Codec:
    """The codec that wrote ``payload``. Raises BadPayload for one that is not in the table."""
    codec = codec_labelled(payload.codec)
    if codec is None:
        raise BadPayload(f"unknown codec {payload.codec!r}", array="")
    return codec
