"""The vault: one safetensors file per segment, whole or not there at all.

A file is written under another name, synced, linked to its own, and its folder synced, so that a
segment that was acknowledged survives a crash. What is read is believed only if the digest over
metadata and arrays holds, the address is that of the content, and format, codec and model are
known; anything else is a typed error and never reaches a decoder.

All methods block and may be called from several threads at once.
"""

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from greenroom.runtime.codec import Payload, codec_labelled
from greenroom.runtime.errors import GreenroomError, StorageFailed
from greenroom.runtime.medium import Medium, make_durable_folder
from greenroom.runtime.quantize import Array, Bytes
from greenroom.runtime.segments import Segment, digest

FORMAT = "greenroom segment"
FORMAT_VERSION = "1"
_SUFFIX = ".safetensors"
_MAX_HEADER = 64 << 20
_SEGMENT_PATH = re.compile(r"segments/(?P<a>[0-9a-f]{2})/(?P=a)([0-9a-f]{38})\.safetensors")
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


class Found(msgspec.Struct, frozen=True):
    """A file in the store: its path below the store's folder, its size and the time of its last
    change. ``segment_id`` is set where it bears the name of a segment."""

    path: str
    num_bytes: int
    modified: float
    segment_id: str | None


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Vault:
    """Segment files below ``root``. ``fingerprint``, when given, is the only model accepted."""

    def __init__(
        self, root: Path, fingerprint: str | None = None, medium: Medium | None = None
    ) -> None:
        self.root = root
        self._segments = root / "segments"
        self._quarantine = root / "quarantine"
        self._temporary = root / "tmp"
        self._fingerprint = fingerprint
        self._medium = medium or Medium()
        make_durable_folder(self._medium, root)
        for folder in (self._segments, self._quarantine, self._temporary):
            self._medium.make_folder(folder)
        self._medium.sync_folder(root)
        # Folders of segments whose own names are durable.
        self._durable = {each.name for each in self._segments.iterdir()}
        self._medium.sync_folder(self._segments)

    def path(self, segment_id: str) -> Path:
        return self._segments / segment_id[:2] / (segment_id + _SUFFIX)

    def write(self, segment: Segment, payload: Payload) -> bool:
        """Make a segment durable. False when its file is there already: it is never replaced,
        since others may have gone on from its bytes. Raises StorageFailed."""
        try:
            return self._write(segment, payload)
        except OSError as error:
            raise StorageFailed(f"the memory of this turn cannot be written: {error}") from error

    def _write(self, segment: Segment, payload: Payload) -> bool:
        path = self.path(segment.id)
        self._prepare(path.parent)
        if path.exists():
            self._medium.sync_folder(path.parent)  # whoever wrote it may not have come so far yet
            return False
        temporary = self._temporary / uuid.uuid4().hex
        try:
            self._fill(temporary, segment, payload)
            return self._publish(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                self._medium.unlink(temporary)

    def _prepare(self, folder: Path) -> None:
        # Not by whether it is there: another thread may have made it and not synced it yet.
        if folder.name not in self._durable:
            self._medium.make_folder(folder)
            self._medium.sync_folder(self._segments)
            self._durable.add(folder.name)

    def _publish(self, temporary: Path, path: Path) -> bool:
        """Give a synced file its own name; False when another came first."""
        try:
            # A link, unlike a rename, never replaces what another thread put there meanwhile.
            self._medium.link(temporary, path)
        except FileExistsError:
            self._medium.sync_folder(path.parent)
            return False
        try:
            self._medium.sync_folder(path.parent)
        except OSError:
            # After a failed sync the next one may succeed and have written nothing: who tries
            # again must make the name anew, not find it here.
            with contextlib.suppress(OSError):
                self._medium.unlink(path)
            raise
        return True

    def _fill(self, path: Path, segment: Segment, payload: Payload) -> None:
        with self._medium.create(path) as file:
            for chunk in file_content(segment, payload):
                self._medium.write(file, chunk)
            self._medium.sync(file)

    def read(self, segment_id: str) -> tuple[Segment, Payload]:
        """Read and verify one segment: one read, arrays are views of it.

        Raises Missing, Damaged, Unreadable or Foreign.
        """
        with _opening(segment_id):
            content = np.fromfile(self.path(segment_id), np.uint8)
        segment, payload = parse_file(segment_id, content)
        if self._fingerprint not in (None, segment.fingerprint):
            raise Foreign(
                f"segment {segment_id} belongs to model {segment.fingerprint}",
                segment_id=segment_id,
            )
        return segment, payload

    def outline(self, segment_id: str) -> Payload:
        """A segment's arrays to look at, not to decode: the file is mapped, and only its header
        is read and believed. Raises as ``read``."""
        with _opening(segment_id):
            content = np.memmap(self.path(segment_id), np.uint8, "r")
        return parse_file(segment_id, content, verify=False)[1]

    def ids(self) -> Iterator[str]:
        """Ids of all segment files, in no order."""
        for path in self._segments.glob("??/*" + _SUFFIX):
            yield path.name.removesuffix(_SUFFIX)

    def delete(self, segment_id: str) -> int:
        """Remove a segment's file; returns the bytes freed, 0 when there was none."""
        return self._remove(self.path(segment_id))

    def purge(self, segment_ids: Iterable[str]) -> int:
        """Remove files of segments, also those set aside; returns the bytes freed."""
        doomed = set(segment_ids)
        freed = sum(self.delete(each) for each in doomed)
        for path in self._quarantine.iterdir():
            if path.name.partition(".")[0] in doomed:
                freed += self._remove(path)
        return freed

    def _remove(self, path: Path) -> int:
        try:
            size = path.stat().st_size
            self._medium.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def quarantine(self, segment_id: str) -> Path | None:
        """Set a file aside, so that it is neither read again nor in the way of a good one.

        None when it is not there or cannot be moved.
        """
        target = self._quarantine / f"{segment_id}.{uuid.uuid4().hex[:8]}{_SUFFIX}"
        try:
            self._medium.rename(self.path(segment_id), target)
            self._medium.sync_folder(self._quarantine)
            self._medium.sync_folder(self.path(segment_id).parent)
        except OSError:
            return None
        return target

    def set_aside(self, path: str) -> None:
        """As ``quarantine``, for any file that ``survey`` has found."""
        source = self.root / path
        target = self._quarantine / f"{source.stem}.{uuid.uuid4().hex[:8]}{source.suffix}"
        with contextlib.suppress(FileNotFoundError):
            self._medium.rename(source, target)
            self._medium.sync_folder(self._quarantine)
            self._medium.sync_folder(source.parent)

    def clear_temporary(self) -> int:
        """Remove what interrupted writes left; only for the owner of the store, at its start."""
        leftovers = list(self._temporary.iterdir())
        for path in leftovers:
            self._medium.unlink(path)
        return len(leftovers)

    def survey(self) -> Iterator[Found]:
        """Every file here: segments, quarantine, leftovers and strangers alike."""
        for folder in (self._segments, self._quarantine, self._temporary):
            yield from self._found(folder)

    def usage_bytes(self) -> int:
        """Bytes of every file here."""
        return sum(each.num_bytes for each in self.survey())

    def index_bytes(self) -> int:
        """Bytes of the index beside the segments, its log apart, which comes and goes."""
        with contextlib.suppress(FileNotFoundError):
            return (self.root / "index.sqlite").stat().st_size
        return 0

    def sweep(self, paths: Iterable[str]) -> int:
        """Remove files that ``survey`` has found to be nobody's; returns the bytes freed."""
        return sum(self._remove(self.root / each) for each in paths)

    def _found(self, folder: Path) -> Iterator[Found]:
        with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._found(Path(entry.path))
                    continue
                with contextlib.suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    path = Path(entry.path).relative_to(self.root).as_posix()
                    named = _SEGMENT_PATH.fullmatch(path)
                    segment_id = named[1] + named[2] if named else None
                    yield Found(path, facts.st_size, facts.st_mtime, segment_id)


@contextlib.contextmanager
def _opening(segment_id: str) -> Iterator[None]:
    """What goes wrong while a segment's file is opened, as our errors."""
    try:
        yield
    except FileNotFoundError:
        raise Missing(f"segment {segment_id} has no file", segment_id=segment_id) from None
    except (IsADirectoryError, NotADirectoryError, ValueError) as error:  # ValueError: empty
        raise Damaged(f"segment {segment_id}: {error}", segment_id=segment_id) from error
    except OSError as error:
        raise Unreadable(f"segment {segment_id}: {error}", segment_id=segment_id) from error


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
