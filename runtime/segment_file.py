"""A segment's file: safetensors, with the segment's record and a digest in its header.

What a file says is believed only if the digest over record and arrays holds, the address is that
of the content, and format and codec are known; anything else is a typed error.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from greenroom.runtime.codec import Payload, codec_labelled
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.quantize import Array, Bytes
from greenroom.runtime.segments import Segment, digest

FORMAT = "greenroom segment"
FORMAT_VERSION = "1"
_MAX_HEADER = 64 << 20
# A closed table: uint16 is how numpy carries the bits of a bfloat16.
_TYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


class VaultError(GreenroomError):
    """A segment's file cannot be used; ``segment_id`` names it. The caller goes on from the
    deepest good ancestor."""

    def __init__(self, message: str, *, segment_id: str) -> None:
        super().__init__(message)
        self.segment_id = segment_id


class Missing(VaultError):
    """There is no file for this segment."""


class Damaged(VaultError):
    """The file is truncated or changed: the disk's or somebody else's doing."""


class Unreadable(VaultError):
    """The file is there, but the system does not give it: no rights, no descriptors, a bad disk."""


class Foreign(VaultError):
    """The file is sound but not ours to read: another format, codec or model."""


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def content_digest(record: str, arrays: Mapping[str, Array]) -> str:
    """SHA-256 over a segment's metadata and its arrays, whatever the layout of the file."""
    hasher = hashlib.sha256()
    for name in ("", *sorted(arrays)):
        array = arrays.get(name)
        head = record if array is None else f"{name} {_NAMES[array.dtype]} {array.shape}"
        encoded = head.encode()
        hasher.update(len(encoded).to_bytes(8, "little"))
        hasher.update(encoded)
        if array is not None:
            hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def file_content(segment: Segment, payload: Payload) -> Iterator[memoryview]:
    """A segment's file, piece by piece."""
    record = msgspec.json.encode(segment).decode()
    header: dict[str, object] = {
        "__metadata__": {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "segment": record,
            "digest": content_digest(record, payload.arrays),
        }
    }
    # Wide types first, so that every array is aligned to its type.
    ordered = sorted(payload.arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    at = 0
    for name, array in ordered:
        header[name] = _Tensor(_NAMES[array.dtype], array.shape, (at, at + array.nbytes))
        at += array.nbytes
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)
    yield memoryview(len(encoded).to_bytes(8, "little") + encoded)
    for _, array in ordered:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def parse_file(segment_id: str, content: Bytes, *, verify: bool = True) -> tuple[Segment, Payload]:
    """What a segment's file holds, as views of ``content``. Raises Damaged or Foreign."""
    try:
        size = int.from_bytes(content[:8].tobytes(), "little")
        if len(content) < 8 or not 0 < size <= min(len(content) - 8, _MAX_HEADER):
            raise Damaged(f"segment {segment_id} is truncated", segment_id=segment_id)
        header = msgspec.json.decode(
            content[8 : 8 + size].tobytes(), type=dict[str, dict[str, Any]]
        )
        metadata = header.pop("__metadata__", {})
        if (metadata.get("format"), metadata.get("version")) != (FORMAT, FORMAT_VERSION):
            raise Foreign(f"segment {segment_id} is no segment of ours", segment_id=segment_id)
        arrays = {
            name: _view(content[8 + size :], msgspec.convert(tensor, _Tensor))
            for name, tensor in header.items()
        }
        record = metadata["segment"]
        if verify and content_digest(record, arrays) != metadata["digest"]:
            raise Damaged(f"segment {segment_id} fails its digest", segment_id=segment_id)
        segment = msgspec.json.decode(record, type=Segment)
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.MsgspecError) as error:
        raise Damaged(f"segment {segment_id} is damaged: {error}", segment_id=segment_id) from error
    if segment.id != segment_id or digest(segment) != segment_id:
        raise Damaged(f"segment {segment_id} holds {segment.id}", segment_id=segment_id)
    if codec_labelled(segment.codec) is None:
        raise Foreign(f"segment {segment_id} is in {segment.codec}", segment_id=segment_id)
    return segment, Payload(segment.codec, segment.num_tokens, arrays)


def _view(data: Bytes, tensor: _Tensor) -> Array:
    start, stop = tensor.data_offsets
    if not 0 <= start <= stop <= len(data):
        raise ValueError(f"an array at [{start}, {stop}) of {len(data)} bytes")
    return data[start:stop].view(_TYPES[tensor.dtype]).reshape(tensor.shape)
