"""The index: agents and segments in one SQLite database, each change one transaction.

A segment's file is durable before its row is committed, so a row without a file is damage and a
file without a row is a leftover.
"""

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path

import msgspec

from greenroom.runtime.database import Database
from greenroom.runtime.errors import StorageFailed, StoreBusy, StoreTooNew, StoreUnusable
from greenroom.runtime.lineage import by_chain
from greenroom.runtime.medium import Medium, make_durable_folder
from greenroom.runtime.reach import left, remove_unneeded, rows, unreachable
from greenroom.runtime.rows import AgentRow, Contents, PinRow, Rows
from greenroom.runtime.schema import SCHEMA_VERSION, schema_of, upgrade
from greenroom.runtime.segments import Segment, digest

_SEGMENT_COLUMNS = "id, parent, namespace, fingerprint, num_bytes, last_used, checksum, record"
_AGENT_COLUMNS = "namespace, name, head, system, fingerprint, created, last_used, extras"


class Index:
    """The index below ``root``, locked against other processes until ``close``.

    Raises StoreBusy, StoreTooNew or StoreUnusable. Use it from one thread at a time.
    """

    def __init__(self, root: Path, medium: Medium | None = None) -> None:
        self._medium = medium or Medium()
        try:
            self._open(root)
        except (OSError, sqlite3.Error, StorageFailed) as error:
            raise StoreUnusable(root, error) from error

    def _open(self, root: Path) -> None:
        make_durable_folder(self._medium, root)
        self._lock = _lock(root)
        try:
            self._database = Database(root / "index.sqlite", self._medium, "index")
            self._db = self._database.connection
            try:
                self._prepare(root)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare(self, root: Path) -> None:
        found = schema_of(self._db)
        if found > SCHEMA_VERSION:
            raise StoreTooNew(root, found, SCHEMA_VERSION)
        if found < SCHEMA_VERSION:
            with self._database.transaction():
                upgrade(self._db, found)
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreUnusable(root, verdict)

    def close(self) -> None:
        """Close the database and let another process have it."""
        self._database.close()
        os.close(self._lock)

    def together(self, changes: Sequence[Callable[[], object]]) -> list[Exception | None]:
        """Make changes in one transaction; what each has raised. See ``Database``."""
        return self._database.together(changes)

    def commit(
        self,
        segments: Iterable[Segment] = (),
        agent: AgentRow | None = None,
        used: Iterable[str | None] = (),
    ) -> None:
        """Add segments whose files are durable, and move an agent, in one transaction.

        The segments ``used`` have been so until the agent's ``last_used``.

        A segment that is there already stays as it is, and is stored again if it was not; one that
        is new is of the agent's making.
        """
        maker = agent.created if agent is not None else None
        with self._database.transaction():
            self._db.executemany(
                f"INSERT INTO segments ({_SEGMENT_COLUMNS}, maker) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET stored = 1, last_used = excluded.last_used",
                [(*_row(each), maker) for each in segments],
            )
            if agent is not None:
                self._db.executemany(
                    "UPDATE segments SET last_used = MAX(last_used, ?) WHERE id = ?",
                    [(agent.last_used, each) for each in used],
                )
                row = (*msgspec.structs.astuple(agent)[:-1], msgspec.msgpack.encode(agent.extras))
                self._db.execute(
                    f"INSERT OR REPLACE INTO agents ({_AGENT_COLUMNS}) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )

    def load_all(self) -> Contents:
        """Everything, for a start."""
        good: list[Segment] = []
        bad: list[str] = []
        evicted: set[str] = set()
        for segment_id, record, stored, checksum in self._db.execute(
            "SELECT id, record, stored, checksum FROM segments"
        ):
            if not stored:
                evicted.add(segment_id)
            segment = _unpack(segment_id, record, checksum)
            if segment is None:
                bad.append(segment_id)
            else:
                good.append(segment)
        whole, broken = by_chain(good)
        lost = (*bad, *broken)
        return Contents(self.list_agents(), whole, lost, self.list_pins(), frozenset(evicted))

    def get_agent(self, namespace: str, name: str) -> AgentRow | None:
        found = self._agents("WHERE namespace = ? AND name = ?", (namespace, name))
        return found[0] if found else None

    def list_agents(self, namespace: str | None = None) -> tuple[AgentRow, ...]:
        """Agents by name; of all namespaces when none is given."""
        if namespace is None:
            return self._agents("", ())
        return self._agents("WHERE namespace = ?", (namespace,))

    def delete_agent(self, namespace: str, name: str) -> bool:
        """Forget an agent and its pins; its segments stay until they are collected. False if
        unknown."""
        with self._database.transaction():
            self._db.execute(
                "DELETE FROM pins WHERE namespace = ? AND agent = ?", (namespace, name)
            )
            return self._db.execute(
                "DELETE FROM agents WHERE namespace = ? AND name = ?", (namespace, name)
            ).rowcount > 0  # fmt: skip

    def touch(self, segment_ids: Iterable[str], now: float) -> None:
        """Note that segments were used."""
        with self._database.transaction():
            self._db.executemany(
                "UPDATE segments SET last_used = ? WHERE id = ?", [(now, i) for i in segment_ids]
            )

    def pin(self, pin: PinRow) -> None:
        """Keep a segment for an agent; again is no change."""
        with self._database.transaction():
            self._db.execute(
                "INSERT INTO pins VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                msgspec.structs.astuple(pin),
            )

    def unpin(self, namespace: str, agent: str, segment_id: str) -> bool:
        """Let go of a pin. False if there was none."""
        with self._database.transaction():
            return self._db.execute(
                "DELETE FROM pins WHERE namespace = ? AND agent = ? AND segment = ?",
                (namespace, agent, segment_id),
            ).rowcount > 0  # fmt: skip

    def list_pins(self) -> tuple[PinRow, ...]:
        """All pins, the oldest first."""
        rows = self._db.execute(
            "SELECT namespace, agent, segment, created FROM pins ORDER BY created, segment"
        )
        return tuple(PinRow(*row) for row in rows)

    def unreachable(self, held: Iterable[str] = ()) -> tuple[str, ...]:
        """Segments that no agent's head, no pin and none of the ``held`` segments needs."""
        return unreachable(self._db, held)

    def left(self) -> tuple[str, ...]:
        """What is unreachable and not of the making of any agent that there still is."""
        return left(self._db)

    def remove(self, segment_ids: Sequence[str]) -> None:
        """Forget segments: before their files are deleted, so that no row is left without one."""
        with self._database.transaction():
            self._db.executemany(
                "DELETE FROM segments WHERE id = ?", [(each,) for each in segment_ids]
            )

    def collect(self, segment_ids: Iterable[str], held: Iterable[str] = ()) -> tuple[str, ...]:
        """As ``remove``, but only those that no head, no pin and no ``held`` segment needs.

        Returns the ids of those gone. Children may come in any order with their parents: what a
        living child needs stays.
        """
        kept = set(held)
        gone: list[str] = []
        with self._database.transaction():
            waiting = [each for each in dict.fromkeys(segment_ids) if each not in kept]
            while waiting:
                later = [each for each in waiting if not remove_unneeded(self._db, each)]
                if len(later) == len(waiting):
                    break
                left = set(later)
                gone += [each for each in waiting if each not in left]
                waiting = later
        return tuple(gone)

    def scrub(self) -> None:
        """Let no log remember what has been removed: its bytes are in no file afterwards."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def rows(self) -> Rows:
        """What needs what, for deciding what goes."""
        return rows(self._db)

    def restore(self, segments: Iterable[Segment]) -> None:
        """Write rows anew, from files that are sound."""
        with self._database.transaction():
            self._db.executemany(
                f"INSERT OR REPLACE INTO segments ({_SEGMENT_COLUMNS}) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [_row(each) for each in segments],
            )

    def retreat(self, whole: Container[str]) -> None:
        """Have agents whose head is not among the ``whole`` segments stand on the deepest one
        before it that is, as far as the tables say what was before it."""
        parents = {each.id: each.parent for each in self.rows().segments}
        with self._database.transaction():
            for agent in self.list_agents():
                head = agent.head
                while head is not None and head not in whole:
                    head = parents.get(head)
                if head != agent.head:
                    self._db.execute(
                        "UPDATE agents SET head = ? WHERE namespace = ? AND name = ?",
                        (head, agent.namespace, agent.name),
                    )

    def unstore(self, segment_ids: Iterable[str]) -> None:
        """Note that segments have no bytes any more, before their files are deleted."""
        with self._database.transaction():
            self._db.executemany(
                "UPDATE segments SET stored = 0 WHERE id = ?", [(each,) for each in segment_ids]
            )

    def total_bytes(self) -> int:
        """Encoded bytes of all segments."""
        (total,) = self._db.execute("SELECT COALESCE(SUM(num_bytes), 0) FROM segments").fetchone()
        return int(total)

    def _agents(self, where: str, values: Sequence[str]) -> tuple[AgentRow, ...]:
        query = f"SELECT {_AGENT_COLUMNS} FROM agents {where} ORDER BY namespace, name"
        names = AgentRow.__struct_fields__
        return tuple(
            AgentRow(**dict(zip(names, (*row[:-1], msgspec.msgpack.decode(row[-1])), strict=True)))
            for row in self._db.execute(query, values)
        )


def _lock(root: Path) -> int:
    """Lock the store for this process; the lock goes with the process, however it ends."""
    descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreBusy(root) from None
    return descriptor


def _row(segment: Segment) -> tuple[object, ...]:
    """A segment as ``_SEGMENT_COLUMNS`` have it."""
    s = segment
    record = msgspec.msgpack.encode(s)
    checksum = zlib.crc32(record)
    return s.id, s.parent, s.namespace, s.fingerprint, s.num_bytes, s.created, checksum, record


def _unpack(segment_id: str, record: bytes, checksum: int | None) -> Segment | None:
    """The segment in a row; None when the row is damaged."""
    try:
        segment = msgspec.msgpack.decode(record, type=Segment)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    sound = checksum == zlib.crc32(record) or digest(segment) == segment_id
    return segment if sound and segment.id == segment_id else None
