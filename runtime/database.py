"""A SQLite database that keeps what it has taken: of index and ledger, each in a file of its own.

WAL with ``synchronous=FULL``: a committed transaction survives a power cut, for one sync of the
log.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from greenroom.runtime.errors import StorageFailed
from greenroom.runtime.medium import Medium


class Database:
    """The database in the file ``path``, made if there is none. Use it from one thread at a time.

    ``name`` is what it is called where the disk refuses. Raises OSError and sqlite3.Error.
    """

    def __init__(self, path: Path, medium: Medium, name: str) -> None:
        # The file is made first, for its mode; SQLite gives its companions the same.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._medium = medium
        self._name = name
        try:
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute("PRAGMA fullfsync = ON")  # macOS: past the drive's cache
            self.connection.execute("PRAGMA secure_delete = ON")  # what is deleted is in no file
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing, durable at its end; one within another is undone alone, and
        durable with the outer one. Raises StorageFailed where the disk refuses."""
        inner = self.connection.in_transaction
        try:
            self.connection.execute("SAVEPOINT part" if inner else "BEGIN IMMEDIATE")
            yield
            if inner:
                self.connection.execute("RELEASE part")
            else:
                self._medium.commit(self.connection)
        except BaseException as error:
            if self.connection.in_transaction:  # SQLite ends it itself after some errors
                self.connection.execute("ROLLBACK TO part" if inner else "ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise StorageFailed(f"the {self._name} cannot be written: {error}") from error
            raise

    def together(self, changes: Sequence[Callable[[], object]]) -> list[Exception | None]:
        """Make changes, each of which is a transaction of its own, in one, with one sync.

        Returns what each has raised, which undoes that one alone. Where the disk refuses all of
        them they are made one by one: there may be room for some.
        """
        if len(changes) > 1:
            try:
                with self.transaction():
                    return [self._outcome(change) for change in changes]
            except StorageFailed:
                pass
        return [self._outcome(change) for change in changes]

    def _outcome(self, change: Callable[[], object]) -> Exception | None:
        within = self.connection.in_transaction
        try:
            change()
        except Exception as error:
            if within and not self.connection.in_transaction:
                raise  # what the others have changed is undone, too
            return error
        return None
