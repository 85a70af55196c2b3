"""A parcel: one agent with all its memory in one file, to be taken to another home.

An ordinary tar archive, so that nothing is hidden in it: ``agent.json``, then each segment of the
chain, oldest first, as the safetensors file that the vault keeps (or only its record, as JSON,
where the bytes were gone), and ``sha256``, a digest over all that comes before. Segments are
addressed in the empty namespace: whose they were is not told.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, TypeVar

import msgspec
import numpy as np

from greenroom.runtime.agent_records import Overflow, Share
from greenroom.runtime.codec import Payload
from greenroom.runtime.errors import Conflict, InvalidRequest
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.lineage import continues
from greenroom.runtime.segment_file import Damaged, Foreign, file_content, parse_file
from greenroom.runtime.segments import Segment, digest

T = TypeVar("T")

FORMAT = "greenroom agent"
VERSION = 1
_MANIFEST, _DIGEST = "agent.json", "sha256"
_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_LARGEST_JSON = 64 << 20


class BadParcel(InvalidRequest):
    """The file is no parcel, or it is truncated or changed: whoever sent it should send it anew."""

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"this is no whole agent file: {reason}", param="file", code="damaged_file"
        )


class ParcelTooNew(InvalidRequest):
    """The parcel was written by a later greenroom, in ``found``."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"this agent file is in {found}, which this greenroom does not know; update it",
            param="file",
            code="too_new",
        )
        self.found = found


class OtherModel(Conflict):
    """The memory in the parcel is another model's, ``model``, and means nothing to this one."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"this agent's memory is that of {model}; serve that model to import it",
            param="file",
            code="other_model",
        )
        self.model = model


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in a parcel. ``model`` is a name for people, ``fingerprint`` is what counts."""

    format: str = FORMAT
    version: int = VERSION
    name: str
    system: str | None
    model: str
    fingerprint: str
    num_segments: int
    ttl_s: float | None = None
    overflow: Overflow | None = None
    share: Share = "namespace"
    frame: Frame = PLAIN


class _Seal(msgspec.Struct, frozen=True):
    format: str = ""
    version: int = 0


def packed_manifest(manifest: Manifest, hasher: "hashlib._Hash") -> Iterator[bytes]:
    """The beginning of a parcel; ``hasher`` is to see all of it."""
    return _packed(_MANIFEST, [memoryview(msgspec.json.encode(manifest))], hasher)


def packed_segment(
    number: int, segment: Segment, payload: Payload | None, hasher: "hashlib._Hash"
) -> Iterator[bytes]:
    """The next segment of a parcel."""
    if payload is None:
        record = memoryview(msgspec.json.encode(segment))
        return _packed(f"{number:06}-{segment.id}.json", [record], hasher)
    content = file_content(segment, payload)
    return _packed(f"{number:06}-{segment.id}.safetensors", content, hasher)


def packed_seal(hasher: "hashlib._Hash") -> Iterator[bytes]:
    """The end of a parcel."""
    seal = hasher.hexdigest().encode()
    yield from _packed(_DIGEST, [memoryview(seal)], hasher)
    yield bytes(2 * _BLOCK)


def _packed(name: str, content: Iterable[memoryview], hasher: "hashlib._Hash") -> Iterator[bytes]:
    pieces = [piece.cast("B") for piece in content]
    member = tarfile.TarInfo(name)
    member.size = sum(len(piece) for piece in pieces)
    member.mode = 0o600
    yield _seen(member.tobuf(tarfile.PAX_FORMAT), hasher)
    for piece in pieces:
        for at in range(0, len(piece), _PIECE):
            yield _seen(bytes(piece[at : at + _PIECE]), hasher)
    yield _seen(bytes(-member.size % _BLOCK), hasher)


def _seen(data: bytes, hasher: "hashlib._Hash") -> bytes:
    hasher.update(data)
    return data


def _follows(before: Segment | None, segment: Segment) -> bool:
    if before is None:
        return segment.parent is None and segment.start == 0
    return segment.parent == before.id and continues(before, segment)


class Parcel:
    """A parcel in a seekable ``file``; blocking. Nothing in it is believed before its seal holds.

    Raises BadParcel or ParcelTooNew.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.seek(0)
        try:
            self._members = tarfile.TarFile(fileobj=file, mode="r").getmembers()
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise BadParcel(error) from error
        self.manifest = self._opened()

    def segments(self) -> Iterator[tuple[Segment, Payload | None]]:
        """Each segment with its encoded state, None where that was gone."""
        before: Segment | None = None
        for number, member in enumerate(self._members[1:-1]):
            segment, payload = self._segment(number, member)
            if not _follows(before, segment) or segment.fingerprint != self.manifest.fingerprint:
                raise BadParcel(f"segment {segment.id} does not follow the one before it")
            before = segment
            yield segment, payload

    def _opened(self) -> Manifest:
        if len(self._members) < 2 or self._members[0].name != _MANIFEST:
            raise BadParcel("it does not begin as one")
        content = self._read(self._members[0])
        seal = _json(content, _Seal)
        if seal.format != FORMAT:
            raise BadParcel("it does not begin as one")
        if seal.version > VERSION:
            raise ParcelTooNew(f"version {seal.version}")
        if self._members[-1].name != _DIGEST:
            raise BadParcel("its end is missing")
        if self._hash(self._members[-1].offset) != self._read(self._members[-1]):
            raise BadParcel("its digest does not hold")
        manifest = _json(content, Manifest)
        if manifest.num_segments != len(self._members) - 2:
            raise BadParcel(f"it holds {len(self._members) - 2} segments")
        return manifest

    def _segment(self, number: int, member: tarfile.TarInfo) -> tuple[Segment, Payload | None]:
        stem, _, kind = member.name.partition(".")
        place, _, segment_id = stem.partition("-")
        if place != f"{number:06}" or kind not in ("json", "safetensors"):
            raise BadParcel(f"{member.name!r} has no place in it")
        if kind == "json":
            segment = _json(self._read(member), Segment)
            if not digest(segment) == segment.id == segment_id:
                raise BadParcel(f"segment {segment.id} is not what it says")
            return segment, None
        self._file.seek(member.offset_data)
        content = np.frombuffer(self._file.read(member.size), np.uint8)
        try:
            return parse_file(segment_id, content)
        except Foreign as error:
            raise ParcelTooNew(str(error)) from error
        except Damaged as error:
            raise BadParcel(error) from error

    def _read(self, member: tarfile.TarInfo) -> bytes:
        if member.size > _LARGEST_JSON:
            raise BadParcel(f"{member.name!r} is too large")
        self._file.seek(member.offset_data)
        return self._file.read(member.size)

    def _hash(self, stop: int) -> bytes:
        hasher = hashlib.sha256()
        self._file.seek(0)
        while stop and (data := self._file.read(min(_PIECE, stop))):
            hasher.update(data)
            stop -= len(data)
        return hasher.hexdigest().encode()


def _json(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadParcel(error) from error
