"""The vault: one safetensors file per segment, whole or not there at all.

Segments of models that forget have another beside it, with what is superseded sooner or later: the
tail of a window and states. It comes first and may go by itself, so that nothing is rewritten.

A file is written under another name, synced, linked to its own, and its folder synced, so that a
segment that was acknowledged survives a crash. What is read is believed only if the digest over
metadata and arrays holds, the address is that of the content, and format, codec and model are
known; anything else is a typed error and never reaches a decoder.

All methods block and may be called from several threads at once.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from greenroom.runtime.codec import Payload, is_passing
from greenroom.runtime.errors import StorageFailed
from greenroom.runtime.medium import Medium, make_durable_folder
from greenroom.runtime.quantize import Array
from greenroom.runtime.segment_file import (
    Damaged,
    Foreign,
    Missing,
    Unreadable,
    file_content,
    parse_file,
)
from greenroom.runtime.segments import Segment

_SUFFIX = ".safetensors"
_STATE_SUFFIX = ".state.safetensors"
_SEGMENT_PATH = re.compile(
    r"segments/(?P<a>[0-9a-f]{2})/(?P=a)([0-9a-f]{38})(\.state)?\.safetensors"
)


class Found(msgspec.Struct, frozen=True):
    """A file in the store: its path below the store's folder, its size and the time of its last
    change. ``segment_id`` is set where it bears the name of a segment, or of its ``state``."""

    path: str
    num_bytes: int
    modified: float
    segment_id: str | None
    state: bool = False


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

    def state_path(self, segment_id: str) -> Path:
        """Where the tails of windows and the states of a segment are, if it has any."""
        return self._segments / segment_id[:2] / (segment_id + _STATE_SUFFIX)

    def write(self, segment: Segment, payload: Payload) -> bool:
        """Make a segment durable. False when its file is there already: it is never replaced,
        since others may have gone on from its bytes. Raises StorageFailed."""
        try:
            return self._write(segment, payload)
        except OSError as error:
            raise StorageFailed(f"the memory of this turn cannot be written: {error}") from error

    def _write(self, segment: Segment, payload: Payload) -> bool:
        lasting, passing = _divided(payload)
        path = self.path(segment.id)
        self._prepare(path.parent)
        if passing.arrays:
            self._put(self.state_path(segment.id), segment, passing)
        return self._put(path, segment, lasting)

    def _put(self, path: Path, segment: Segment, payload: Payload) -> bool:
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
        try:
            state = self.read_state(segment_id)
        except Damaged:  # as good as superseded: what it held is computed anew where it is missed
            self.set_aside(self.state_path(segment_id).relative_to(self.root).as_posix())
            state = None
        return segment, _joined(payload, state)

    def read_state(self, segment_id: str) -> Payload | None:
        """The tails and states that are kept beside a segment; None where there are none (more).

        Raises Damaged, Unreadable or Foreign.
        """
        try:
            with _opening(segment_id):
                content = np.fromfile(self.state_path(segment_id), np.uint8)
        except Missing:
            return None
        return parse_file(segment_id, content)[1]

    def outline(self, segment_id: str) -> Payload:
        """A segment's arrays to look at, not to decode: files are mapped, and only their headers
        are read and believed. Raises as ``read``."""
        with _opening(segment_id):
            content = np.memmap(self.path(segment_id), np.uint8, "r")
        payload = parse_file(segment_id, content, verify=False)[1]
        try:
            with _opening(segment_id):
                content = np.memmap(self.state_path(segment_id), np.uint8, "r")
            return _joined(payload, parse_file(segment_id, content, verify=False)[1])
        except (Missing, Damaged):
            return payload

    def ids(self) -> Iterator[str]:
        """Ids of all segment files, in no order."""
        for path in self._segments.glob("??/*" + _SUFFIX):
            if not path.name.endswith(_STATE_SUFFIX):
                yield path.name.removesuffix(_SUFFIX)

    def delete(self, segment_id: str) -> int:
        """Remove a segment's files; returns the bytes freed, 0 when there was none."""
        return self._remove(self.path(segment_id)) + self._remove(self.state_path(segment_id))

    def drop_states(self, segment_ids: Iterable[str]) -> int:
        """Remove tails and states that are superseded; returns the bytes freed."""
        return sum(self._remove(self.state_path(each)) for each in segment_ids)

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
        self._remove(self.state_path(segment_id))
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
                    state = named is not None and named[3] is not None
                    yield Found(path, facts.st_size, facts.st_mtime, segment_id, state)


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


def _divided(payload: Payload) -> tuple[Payload, Payload]:
    """What lasts as long as the segment, and what is superseded sooner."""
    parts: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
    for name, array in payload.arrays.items():
        parts[is_passing(name)][name] = array
    lasting, passing = (Payload(payload.codec, payload.num_tokens, part) for part in parts)
    return lasting, passing


def _joined(payload: Payload, state: Payload | None) -> Payload:
    if state is None:
        return payload
    return Payload(payload.codec, payload.num_tokens, {**payload.arrays, **state.arrays})
