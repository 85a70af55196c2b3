"""Whatever can happen to a store's files and rows is found, and mended as far as it can be."""

import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from greenroom.actors.cli import main
from greenroom.runtime.audit import Finding, recall, repair, verify
from greenroom.runtime.index import Index
from greenroom.runtime.mending import load
from greenroom.runtime.rows import AgentRow
from greenroom.runtime.segments import Segment, chain
from greenroom.runtime.vault import Vault
from tests.backstage import payload_of, segment


class Store(NamedTuple):
    """A chain of three, on which alice stands, and a short one, on which bob does."""

    root: Path
    vault: Vault
    trunk: Segment
    middle: Segment
    tip: Segment
    other: Segment

    def rows(self, statement: str, *values: object) -> None:
        """Change the tables behind the index's back."""
        with closing(sqlite3.connect(self.root / "index.sqlite")) as db:
            db.execute(statement, values)
            db.commit()

    def look(self) -> tuple[Finding, ...]:
        with self.opened() as index:
            return verify(index, self.vault, lambda done, total: None)

    def mend(self) -> None:
        with self.opened() as index:
            repair(index, self.vault, verify(index, self.vault, lambda done, total: None))

    @contextmanager
    def opened(self) -> Iterator[Index]:
        index = Index(self.root)
        try:
            yield index
        finally:
            index.close()

    def standing(self, name: str) -> str | None:
        """On which segment an agent stands after a start."""
        with self.opened() as index:
            contents = load(index, lambda each: recall(self.vault, each))
            assert contents.broken == ()
            by_id = {each.id: each for each in contents.segments}
            (agent,) = (each for each in contents.agents if each.name == name)
            chain(agent.head, by_id)
            return agent.head


@pytest.fixture
def store(tmp_path: Path) -> Store:
    root = tmp_path / "store"
    vault = Vault(root)
    trunk = segment(None, range(40))
    middle = segment(trunk, range(100, 140))
    tip = segment(middle, range(200, 240))
    other = segment(None, range(300, 340))
    index = Index(root)
    for each in (trunk, middle, tip, other):
        vault.write(each, payload_of(each))
    index.commit((trunk, middle, tip), agent("alice", tip))
    index.commit((other,), agent("bob", other))
    index.close()
    return Store(root, vault, trunk, middle, tip, other)


def agent(name: str, head: Segment) -> AgentRow:
    return AgentRow(
        namespace="n",
        name=name,
        head=head.id,
        system=None,
        fingerprint="f",
        created=1.0,
        last_used=2.0,
    )


def truncate(store: Store) -> None:
    path = store.vault.path(store.middle.id)
    path.write_bytes(path.read_bytes()[:-100])


def flip(store: Store) -> None:
    path = store.vault.path(store.middle.id)
    content = bytearray(path.read_bytes())
    content[-77] ^= 4
    path.write_bytes(content)


def plant(store: Store) -> None:
    path = store.root / "segments" / "ab" / "holiday.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"JFIF")


def disguise(store: Store) -> None:
    path = store.vault.path("ab" * 20)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"JFIF" * 100)


def lose_parent(store: Store) -> None:
    store.rows("DELETE FROM segments WHERE id = ?", store.trunk.id)
    store.vault.delete(store.trunk.id)


def lose_file(store: Store) -> None:
    store.vault.delete(store.middle.id)


def lose_head(store: Store) -> None:
    store.rows("DELETE FROM segments WHERE id = ?", store.tip.id)


def swap_model(store: Store) -> None:
    stranger = segment(None, range(50), fingerprint="another model")
    store.vault.write(stranger, payload_of(stranger))


def swap_model_of_a_child(store: Store) -> None:
    """Someone wrote another model into a segment's row and file, digests and all."""
    stranger = segment(store.trunk, range(100, 140), fingerprint="another model")
    store.vault.write(stranger, payload_of(stranger))
    with store.opened() as index:
        index.commit((stranger,), agent("carol", stranger))


def interrupt(store: Store) -> None:
    (store.root / "tmp" / "0123").write_bytes(b"half")


def garble_row(store: Store) -> None:
    changed = msgspec.structs.replace(store.middle, token_bytes=store.tip.token_bytes)
    store.rows(
        "UPDATE segments SET record = ? WHERE id = ?",
        msgspec.msgpack.encode(changed),
        store.middle.id,
    )


def leave_file(store: Store) -> None:
    late = segment(store.tip, range(400, 440))
    later = segment(late, range(500, 540))
    for each in (late, later):
        store.vault.write(each, payload_of(each))


def leave_file_without_parent(store: Store) -> None:
    leave_file(store)
    store.vault.delete(segment(store.tip, range(400, 440)).id)
    lost = segment(store.tip, range(600, 640))
    late = segment(lost, range(700, 740))
    for each in (late, segment(late, range(800, 840))):
        store.vault.write(each, payload_of(each))


Harm = Callable[[Store], None]
CASES: list[tuple[Harm, str, str]] = [  # what happens, what is found, where alice stands then
    (truncate, "damaged file", "tip"),
    (flip, "damaged file", "tip"),
    (plant, "foreign file", "tip"),
    (disguise, "damaged file", "tip"),
    (lose_parent, "missing parent", ""),
    (lose_file, "missing file", "tip"),
    (lose_head, "missing head", "tip"),
    (swap_model, "foreign model", "tip"),
    (swap_model_of_a_child, "wrong model", "tip"),
    (interrupt, "half-written file", "tip"),
    (garble_row, "damaged row", "tip"),
    (leave_file, "unowned file", "tip"),
    (leave_file_without_parent, "unowned file", "tip"),
]


@pytest.mark.parametrize(("harm", "fault", "stands"), CASES, ids=[c[0].__name__ for c in CASES])
def test_what_is_wrong_is_found_and_mended(
    store: Store, harm: Harm, fault: str, stands: str
) -> None:
    assert store.look() == ()
    harm(store)
    found = store.look()
    assert fault in {each.fault for each in found}
    store.mend()
    assert [each for each in store.look() if not each.harmless] == []
    assert store.standing("alice") == (getattr(store, stands).id if stands else None)
    assert store.standing("bob") == store.other.id
    if stands:
        # What was not hurt has its bytes still.
        assert store.vault.read(store.tip.id)[0] == store.tip


def test_a_row_whose_file_is_damaged_too_takes_its_agent_back_to_its_parent(store: Store) -> None:
    garble_row(store)
    flip(store)
    assert {each.fault for each in store.look()} >= {"damaged row", "damaged file"}
    assert store.standing("alice") == store.trunk.id
    store.mend()
    assert [each for each in store.look() if not each.harmless] == []


def run(store: Store, *arguments: str) -> tuple[int, Any]:
    """The command, its status and the JSON that it prints."""
    said, complained = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(complained):
        status = main(["store", *arguments, "--json", "--home", str(store.root.parent)])
    return status, json.loads(said.getvalue() or complained.getvalue())


def test_the_commands(store: Store) -> None:
    status, shown = run(store, "status")
    assert (status, shown["agents"], shown["segments"], shown["stray_files"]) == (0, 2, 4, 0)
    assert shown["total_bytes"] == store.vault.usage_bytes() + shown["index_bytes"]
    assert run(store, "verify") == (0, {"found": []})
    flip(store)
    leave_file(store)
    status, told = run(store, "verify")
    assert status == 1
    assert {each["fault"]: each["harmless"] for each in told["found"]} == {
        "damaged file": False,
        "unowned file": True,
    }
    status, told = run(store, "repair")
    assert status == 0
    assert {each["fault"] for each in told["left"]} == {"unowned file", "set aside"}
    everything = ["--set", "memory.keep_branches_s=0", "--set", "memory.disk_quota_mb=1000"]
    status, dry = run(store, "gc", "--dry-run", *everything)
    assert (status, dry["num_strays"]) == (0, 3)
    assert run(store, "gc", *everything) == (0, dry)
    assert run(store, "verify") == (0, {"found": []})
    assert store.vault.usage_bytes() == run(store, "status")[1]["segment_bytes"]
    status, dry = run(store, "gc", "--set", "memory.disk_quota_mb=1")
    assert (status, dry["freed_bytes"]) == (0, 0)


def test_a_store_that_a_server_holds_is_left_alone(store: Store) -> None:
    with store.opened():
        for part in ("status", "verify", "repair", "gc"):
            status, told = run(store, part)
            assert (status, told["error"]["type"]) == (4, "StoreBusy")
            assert "in use by another greenroom process" in told["error"]["message"]


def test_where_there_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "status", "--home", str(tmp_path)]) == 3
    assert "there is no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_people_get_a_table(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(store.root.parent)
    assert main(["store", "status", "--home", home]) == 0
    assert "unreachable segments" in capsys.readouterr().out
    assert main(["store", "verify", "--home", home]) == 0
    assert capsys.readouterr().out == "nothing found\n"
    interrupt(store)
    assert main(["store", "repair", "--home", home]) == 0
    assert "half-written file (harmless)" in capsys.readouterr().out
