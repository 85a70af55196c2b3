"""The ledger: scenes and what has happened in them, in one SQLite database of its own.

It lives in the store's folder, whose lock (see ``index``) keeps other processes away, and is as
durable as the index. Entries are only ever added, each with its number: a scene that is written
to twice under one number is a defect, which the primary key refuses.
"""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from greenroom.runtime.database import Database
from greenroom.runtime.errors import Conflict, StorageFailed, StoreTooNew, StoreUnusable
from greenroom.runtime.medium import Medium
from greenroom.runtime.scenario import Scenario
from greenroom.runtime.transcript import Entry

LEDGER_VERSION = 1
_TABLES = """
CREATE TABLE scenes (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    scenario BLOB NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE entries (
    uid TEXT NOT NULL,
    number INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (uid, number)
) WITHOUT ROWID;
"""


class SceneRow(msgspec.Struct, frozen=True):
    """A scene as the ledger knows it. ``uid`` is never used again, ``name`` may be.

    ``created`` is in seconds since the epoch.
    """

    namespace: str
    name: str
    uid: str
    scenario: Scenario
    created: float


class Ledger:
    """The ledger in the folder ``root``, which exists. Use it from one thread at a time.

    Raises StoreTooNew or StoreUnusable.
    """

    def __init__(self, root: Path, medium: Medium | None = None) -> None:
        try:
            self._database = Database(root / "scenes.sqlite", medium or Medium(), "ledger")
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(root, error) from error
        self._db = self._database.connection
        try:
            self._prepare(root)
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.Error | StorageFailed):
                raise StoreUnusable(root, error) from error
            raise

    def _prepare(self, root: Path) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found > LEDGER_VERSION:
            raise StoreTooNew(root, found, LEDGER_VERSION)
        if found == 0:
            with self._database.transaction():
                for statement in filter(str.strip, _TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {LEDGER_VERSION}")

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def create(self, namespace: str, scenario: Scenario, uid: str) -> SceneRow:
        """The scene of that name, made if there is none. Raises Conflict where it is another."""
        found = self.find(namespace, scenario.name)
        if found is None:
            row = SceneRow(namespace, scenario.name, uid, scenario, time.time())
            with self._database.transaction():
                self._db.execute(
                    "INSERT INTO scenes VALUES (?, ?, ?, ?, ?)",
                    (namespace, row.name, uid, msgspec.msgpack.encode(scenario), row.created),
                )
            return row
        if found.scenario != scenario:
            raise Conflict(
                f"scene {scenario.name!r} exists and is another; choose another name, or delete it",
                param="name",
                code="scene_exists",
            )
        return found

    def find(self, namespace: str, name: str) -> SceneRow | None:
        """The scene of that name."""
        found = self._scenes("WHERE namespace = ? AND name = ?", (namespace, name))
        return found[0] if found else None

    def list(self, namespace: str) -> tuple[SceneRow, ...]:
        """A namespace's scenes by name."""
        return self._scenes("WHERE namespace = ?", (namespace,))

    def append(self, uid: str, entries: Sequence[Entry]) -> None:
        """Add entries, all or none, durably."""
        with self._database.transaction():
            self._db.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                [(uid, e.number, msgspec.msgpack.encode(e)) for e in entries],
            )

    def read(self, uid: str) -> tuple[Entry, ...]:
        """All entries of a scene, in order."""
        rows = self._db.execute("SELECT record FROM entries WHERE uid = ? ORDER BY number", (uid,))
        decoder = msgspec.msgpack.Decoder(Entry)
        return tuple(decoder.decode(record) for (record,) in rows)

    def delete(self, uid: str) -> None:
        """Forget a scene and all that was said in it."""
        with self._database.transaction():
            self._db.execute("DELETE FROM entries WHERE uid = ?", (uid,))
            self._db.execute("DELETE FROM scenes WHERE uid = ?", (uid,))
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _scenes(self, where: str, values: Sequence[str]) -> tuple[SceneRow, ...]:
        query = f"SELECT namespace, name, uid, scenario, created FROM scenes {where} ORDER BY name"
        decoder = msgspec.msgpack.Decoder(Scenario)
        return tuple(
            SceneRow(namespace, name, uid, decoder.decode(scenario), created)
            for namespace, name, uid, scenario, created in self._db.execute(query, values)
        )
