"""What needs what, as the tables of the index say."""

import sqlite3
from collections.abc import Iterable

import msgspec

from greenroom.runtime.rows import Rows, SegmentRow

# What no head and no pin reaches: a walk from them towards the roots finds all that is alive.
_UNREACHABLE = """
WITH RECURSIVE alive (id) AS (
    SELECT head FROM agents WHERE head IS NOT NULL
    UNION SELECT segment FROM pins
    UNION SELECT value FROM json_each(?)
    UNION SELECT parent FROM segments JOIN alive USING (id) WHERE parent IS NOT NULL
)
SELECT id FROM segments WHERE id NOT IN (SELECT id FROM alive)
"""
# Whose making nobody knows any more (an earlier greenroom, a mended row) counts as anybody's.
_LEFT = f"""{_UNREACHABLE} AND (maker IS NULL OR maker NOT IN (SELECT created FROM agents))
"""
_REMOVE_UNNEEDED = """
DELETE FROM segments WHERE id = ?
AND NOT EXISTS (SELECT 1 FROM segments WHERE parent = ?)
AND NOT EXISTS (SELECT 1 FROM agents WHERE head = ?)
AND NOT EXISTS (SELECT 1 FROM pins WHERE segment = ?)
"""


def rows(db: sqlite3.Connection) -> Rows:
    """All of it."""
    segments = db.execute("SELECT id, parent, last_used, stored FROM segments")
    heads = db.execute(
        "SELECT head, MAX(last_used) FROM agents WHERE head IS NOT NULL GROUP BY head"
    )
    pins = db.execute("SELECT DISTINCT segment FROM pins")
    return Rows(
        tuple(SegmentRow(i, parent, used, bool(stored)) for i, parent, used, stored in segments),
        dict(heads.fetchall()),
        frozenset(row[0] for row in pins),
    )


def unreachable(db: sqlite3.Connection, held: Iterable[str]) -> tuple[str, ...]:
    """Ids of the segments that no head, no pin and none of the ``held`` needs."""
    encoded = msgspec.json.encode(list(held)).decode()
    return tuple(row[0] for row in db.execute(_UNREACHABLE, (encoded,)))


def left(db: sqlite3.Connection) -> tuple[str, ...]:
    """Ids of the unreachable segments that nobody made who is still there."""
    return tuple(row[0] for row in db.execute(_LEFT, ("[]",)))


def remove_unneeded(db: sqlite3.Connection, segment_id: str) -> bool:
    """Remove one row unless something stands on it."""
    return db.execute(_REMOVE_UNNEEDED, (segment_id,) * 4).rowcount > 0
