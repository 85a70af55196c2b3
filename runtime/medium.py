"""The medium: what a store does to the disk, operation by operation.

One object, handed to vault and index, so that tests can record each operation, refuse it, or end
the process there.
"""

import contextlib
import fcntl
import io
import os
import sqlite3
import sys
from pathlib import Path


class Medium:
    """The real disk. All methods block and raise OSError, ``commit`` sqlite3.Error."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that may be there already; only its owner may look inside."""
        path.mkdir(mode=0o700, exist_ok=True)

    def create(self, path: Path) -> io.FileIO:
        """A new file to write to. Raises FileExistsError."""
        return io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def write(self, file: io.FileIO, data: memoryview) -> None:
        """Append all of ``data``."""
        while data:
            data = data[file.write(data) :]

    def sync(self, file: io.FileIO) -> None:
        """Put a file's bytes on the medium: on macOS, past the drive's cache."""
        if sys.platform == "darwin":
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
        else:
            os.fsync(file.fileno())

    def sync_folder(self, path: Path) -> None:
        """Put on the medium which names a folder holds."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name. Raises FileExistsError: unlike a rename, it never replaces."""
        target.hardlink_to(source)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a name. Raises FileNotFoundError."""
        path.unlink()

    def commit(self, database: sqlite3.Connection) -> None:
        """Make a transaction durable: SQLite syncs its log and the log's folder."""
        database.execute("COMMIT")


def make_durable_folder(medium: Medium, path: Path) -> None:
    """Make a folder and its missing parents, so that their names survive a power cut.

    The name of one that is there already is made durable too: whoever made it may not have come
    so far.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for folder in reversed(missing):
        medium.make_folder(folder)
    for folder in (path, *missing[1:]):
        with contextlib.suppress(PermissionError):  # what may not be read cannot be synced
            medium.sync_folder(folder.parent)
