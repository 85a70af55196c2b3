"""The index: transactions, collection, locking, and order at a start."""

import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.errors import StorageFailed, StoreBusy, StoreTooNew, StoreUnusable
from greenroom.runtime.index import Index
from greenroom.runtime.rows import AgentRow, Contents, PinRow
from greenroom.runtime.segments import Segment, make_segment


def segment(parent: Segment | None = None, **over: Any) -> Segment:
    fields: dict[str, Any] = {
        "parent": parent.id if parent else None,
        "start": parent.end if parent else 0,
        "tokens": [1, 2, 3],
        "kind": "prompt",
        "namespace": "n",
        "fingerprint": "f",
        "codec": "float/1",
        "messages": ({"role": "user", "content": "hi"},),
        "num_bytes": 10,
    }
    return make_segment(**{**fields, **over})


def agent(name: str, head: str | None = None, **over: Any) -> AgentRow:
    fields: dict[str, Any] = {
        "namespace": "n",
        "system": None,
        "fingerprint": "f",
        "created": 1.0,
        "last_used": 2.0,
    }
    return AgentRow(name=name, head=head, **{**fields, **over})


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index(tmp_path)
    yield opened
    opened.close()


def test_a_turn_is_there_after_reopening(tmp_path: Path) -> None:
    root = segment(created=5.0)
    child = segment(root, created=1.0)
    alice = agent("alice", child.id, extras={"tags": ["x"], "date": "2026-01-02"})
    index = Index(tmp_path)
    index.commit([root, child], alice)
    index.commit(agent=agent("bob", namespace="m"))
    index.close()
    index = Index(tmp_path)
    contents = index.load_all()
    assert contents.segments == (root, child)
    assert [a.name for a in contents.agents] == ["bob", "alice"]
    assert index.get_agent("n", "alice") == alice
    assert index.get_agent("m", "alice") is None
    assert index.list_agents("n") == (alice,)
    assert index.total_bytes() == 20
    index.close()


def test_committing_again_moves_the_head_and_keeps_the_segment(index: Index) -> None:
    root = segment()
    index.commit([root], agent("alice", root.id))
    child = segment(root)
    index.commit([segment(created=99.0), child], agent("alice", child.id, last_used=7.0))
    assert index.load_all().segments == (root, child)
    found = index.get_agent("n", "alice")
    assert found is not None
    assert (found.head, found.last_used) == (child.id, 7.0)


def test_a_failed_commit_leaves_nothing(index: Index) -> None:
    root = segment()
    with pytest.raises(sqlite3.Error):
        index.commit([root], agent("alice", root.id, created=object()))
    assert index.load_all() == Contents((), (), ())
    index.commit([root], agent("alice", root.id))
    assert len(index.load_all().segments) == 1


def test_deleting_an_agent_frees_what_only_it_needs(index: Index) -> None:
    root = segment()
    one, two = segment(root, tokens=[4]), segment(root, tokens=[5])
    index.commit([root, one], agent("alice", one.id))
    index.commit([two], agent("bob", two.id))
    assert index.unreachable() == ()
    assert index.delete_agent("n", "alice")
    assert not index.delete_agent("n", "alice")
    assert index.unreachable() == (one.id,)
    assert index.unreachable([one.id]) == ()
    index.remove(index.unreachable())
    assert {each.id for each in index.load_all().segments} == {root.id, two.id}
    assert index.total_bytes() == 20


def test_what_an_agent_has_left_is_told_from_what_others_have(index: Index) -> None:
    """By who brought it first; whoever is gone has left it to everybody."""
    root = segment()
    mine, theirs, known, lost, kept = (segment(root, tokens=[n]) for n in range(4, 9))
    index.commit([root, mine, kept], agent("alice", kept.id, created=1.0))
    index.commit([theirs, mine], agent("bob", root.id, created=2.0))
    index.commit([known], agent("carol", known.id, created=3.0))
    index.restore([lost])
    assert set(index.unreachable()) == {mine.id, theirs.id, lost.id}
    assert index.left() == (lost.id,)
    index.delete_agent("n", "alice")
    assert set(index.left()) == {mine.id, lost.id, kept.id}
    index.commit([], agent("alice", created=4.0))  # another of that name
    assert set(index.left()) == {mine.id, lost.id, kept.id}
    index.delete_agent("n", "bob")
    assert set(index.left()) == {mine.id, lost.id, kept.id, theirs.id}


def test_a_pin_keeps_what_its_chain_needs(index: Index) -> None:
    root = segment()
    child, other = segment(root, tokens=[4]), segment(root, tokens=[5])
    index.commit([root, child, other], agent("alice", root.id))
    pins = PinRow("n", "alice", child.id, 1.0), PinRow("n", "bob", child.id, 2.0)
    for pin in (*pins, pins[0]):
        index.pin(pin)
    assert index.list_pins() == index.load_all().pins == pins
    assert index.unreachable() == (other.id,)
    assert index.unpin("n", "bob", child.id)
    assert not index.unpin("n", "bob", child.id)
    assert index.unreachable() == (other.id,), "alice still has hers"
    index.delete_agent("n", "alice")
    assert index.list_pins() == ()
    assert set(index.unreachable()) == {root.id, child.id, other.id}


def test_an_index_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "data" / "index-schema-1.sqlite", tmp_path / "index.sqlite")
    root = segment()
    child = segment(root, tokens=[4, 5])
    for _ in range(2):  # and stays so
        index = Index(tmp_path)
        contents = index.load_all()
        assert contents.segments == (root, child)
        assert contents.agents == (agent("alice", child.id, extras={"tags": ["x"]}),)
        assert contents.broken == ()
        index.pin(PinRow("n", "alice", root.id, 1.0))
        index.close()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=12))
def test_collection_never_touches_what_a_head_or_pin_reaches(
    tmp_path_factory: pytest.TempPathFactory, grown: list[tuple[int, bool]]
) -> None:
    index = Index(tmp_path_factory.mktemp("store"))
    made: list[Segment] = []
    heads: list[Segment] = []
    for number, (parent, is_head) in enumerate(grown):
        made.append(segment(made[parent] if parent < len(made) else None, tokens=[number]))
        index.commit([made[-1]], agent(str(number), made[-1].id) if is_head else None)
        if is_head:
            heads.append(made[-1])
    pins = [each.id for each in made[::5]]
    by_id = {each.id: each for each in made}
    alive = set()
    for start in [each.id for each in heads] + pins:
        at: str | None = start
        while at is not None:
            alive.add(at)
            at = by_id[at].parent
    assert set(index.unreachable(pins)) == by_id.keys() - alive
    index.close()


def test_touched_segments_stay_themselves(index: Index) -> None:
    root = segment()
    index.commit([root])
    index.touch([root.id, "unknown"], 50.0)
    assert index.load_all().segments == (root,)


def test_parents_come_first_and_broken_chains_apart(index: Index) -> None:
    root = segment(created=3.0)
    chain = [root]
    for number in range(5):
        chain.append(segment(chain[-1], tokens=[number], created=2.0 - number))
    lost = segment(tokens=[9])
    orphan = segment(lost, tokens=[8])
    below = segment(orphan, tokens=[7])
    beyond = segment(root, start=4)
    strange = segment(root, fingerprint="g", tokens=[6])
    index.commit([below, orphan, beyond, strange, *reversed(chain)])
    loaded = index.load_all()
    assert loaded.segments == tuple(chain)
    assert set(loaded.broken) == {each.id for each in (orphan, below, beyond, strange)}


def test_a_second_process_is_refused_in_a_clear_sentence(tmp_path: Path) -> None:
    index = Index(tmp_path)
    script = (
        "import sys; from pathlib import Path\n"
        "from greenroom.runtime.errors import StoreBusy\n"
        "from greenroom.runtime.index import Index\n"
        "try: Index(Path(sys.argv[1]))\n"
        "except StoreBusy as busy: print(busy)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "in use by another greenroom process" in told
    with pytest.raises(StoreBusy):
        Index(tmp_path)
    index.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
    Index(tmp_path).close()


def test_a_later_schema_is_refused_and_unlocks(tmp_path: Path) -> None:
    Index(tmp_path).close()
    db = sqlite3.connect(tmp_path / "index.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    for _ in range(2):
        with pytest.raises(StoreTooNew) as caught:
            Index(tmp_path)
        assert caught.value.found == 99


def test_files_are_private(tmp_path: Path) -> None:
    index = Index(tmp_path / "store")
    index.commit([segment()])
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").iterdir()}
    index.close()
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700


def test_a_damaged_row_is_not_believed_and_the_rest_is(tmp_path: Path) -> None:
    good, bad, torn = segment(), segment(tokens=[4]), segment(tokens=[5])
    index = Index(tmp_path)
    index.commit([good, bad, torn])
    index.close()
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as raw:
        flipped = msgspec.msgpack.encode(msgspec.structs.replace(bad, token_bytes=b"\5\0\0\0"))
        raw.execute("UPDATE segments SET record = ? WHERE id = ?", (flipped, bad.id))
        raw.execute("UPDATE segments SET record = ? WHERE id = ?", (b"\xc1", torn.id))
        raw.commit()
    index = Index(tmp_path)
    contents = index.load_all()
    assert contents.segments == (good,)
    assert set(contents.broken) == {bad.id, torn.id}
    index.close()


def test_a_disk_that_refuses_is_told_and_leaves_the_index_usable(
    index: Index, tmp_path: Path
) -> None:
    root = segment()
    index.commit([root])
    big = [segment(tokens=range(n, n + 5000)) for n in range(20)]
    with no_larger_files(50_000), pytest.raises(StorageFailed):
        index.commit(big, agent("alice", root.id))
    assert index.load_all() == Contents((), (root,), ())
    index.commit(big)
    assert len(index.load_all().segments) == 21


@contextmanager
def no_larger_files(num_bytes: int) -> Iterator[None]:
    """A disk that takes no byte of a file beyond the first ``num_bytes``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("damage", ["garbage", "folder", "pages"])
def test_a_store_that_cannot_be_used_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "index.sqlite"
    index = Index(tmp_path)
    index.commit([segment(tokens=range(n, n + 3000)) for n in range(9)])
    index.close()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        content = bytearray(path.read_bytes())
        start = 0 if damage == "garbage" else 4096
        content[start : start + 8192] = b"x" * 8192
        path.write_bytes(content)
    with pytest.raises(StoreUnusable, match="set another home"):
        Index(tmp_path)
    if damage == "garbage":
        path.unlink()
        Index(tmp_path).close()  # the lock was let go


def test_what_an_agent_leaves_was_used_until_then(index: Index) -> None:
    root = segment(created=5.0)
    left, taken = segment(root, tokens=[4], created=6.0), segment(root, tokens=[5], created=7.0)
    index.commit([root, left], agent("alice", left.id, last_used=6.0))
    index.commit([taken], agent("alice", taken.id, last_used=9.0), used=(left.id, root.id, None))
    index.commit((), agent("bob", taken.id, last_used=1.0), used=(left.id,))
    rows = index.rows()
    used = {row.id: row.last_used for row in rows.segments}
    assert used == {root.id: 9.0, left.id: 9.0, taken.id: 7.0}
    assert rows.heads == {taken.id: 9.0}
