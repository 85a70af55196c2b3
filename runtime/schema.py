"""The tables of the index, and how those of an earlier greenroom become these."""

import sqlite3

SCHEMA_VERSION = 4
# With row ids: a page of a table without them keeps only a thousand bytes of a row, and a record is
# longer than that, so that every segment would have a page of its own. ``checksum`` is the CRC-32
# of ``record``: a start believes it, since the address itself takes ten times as long.
_SEGMENTS = """
CREATE TABLE segments (
    id TEXT NOT NULL PRIMARY KEY,
    parent TEXT,
    namespace TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    last_used REAL NOT NULL,
    state_bytes INTEGER NOT NULL DEFAULT 0,
    stored INTEGER NOT NULL DEFAULT 1,
    checksum INTEGER,
    record BLOB NOT NULL
);
CREATE INDEX segments_by_parent ON segments (parent);
"""
# When the agent was made that brought it: who that was, without a name that would outlive it.
_MAKER = "ALTER TABLE segments ADD COLUMN maker REAL;\n"
_CURRENT = f"""{_SEGMENTS}{_MAKER}
CREATE TABLE agents (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    head TEXT,
    system TEXT,
    fingerprint TEXT NOT NULL,
    created REAL NOT NULL,
    last_used REAL NOT NULL,
    extras BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE INDEX agents_by_head ON agents (head);
CREATE TABLE pins (
    namespace TEXT NOT NULL,
    agent TEXT NOT NULL,
    segment TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (namespace, agent, segment)
) WITHOUT ROWID;
"""
# From each schema to the next: an index of an earlier greenroom goes through all that it lacks.
_MIGRATIONS = {
    1: """
ALTER TABLE segments ADD COLUMN state_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments ADD COLUMN stored INTEGER NOT NULL DEFAULT 1;
CREATE TABLE pins (
    namespace TEXT NOT NULL,
    agent TEXT NOT NULL,
    segment TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (namespace, agent, segment)
) WITHOUT ROWID;
""",
    2: f"""
ALTER TABLE segments RENAME TO segments_of_2;
DROP INDEX segments_by_parent;
{_SEGMENTS};
INSERT INTO segments
SELECT id, parent, namespace, fingerprint, num_bytes, last_used, state_bytes, stored, NULL, record
FROM segments_of_2;
DROP TABLE segments_of_2;
""",
    3: _MAKER,
}


def schema_of(db: sqlite3.Connection) -> int:
    """The schema version of an index; 0 for an empty file."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    return int(found)


def upgrade(db: sqlite3.Connection, found: int) -> None:
    """Bring schema ``found`` up to date, inside the caller's transaction."""
    steps = [_MIGRATIONS[n] for n in range(found, SCHEMA_VERSION)] if found else [_CURRENT]
    for statement in filter(str.strip, ";".join(steps).split(";")):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
