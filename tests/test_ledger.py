"""The ledger on a real disk."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from greenroom.runtime.errors import Conflict, StoreTooNew, StoreUnusable
from greenroom.runtime.ledger import Ledger
from greenroom.runtime.scenario import Member, Scenario
from greenroom.runtime.transcript import Line, PhaseBegun

PLAN = Scenario(name="tea", members=(Member(name="ann", agent="ann"),))


def line(number: int, text: str = "Hello.") -> Line:
    return Line(number=number, phase=0, text=text, speaker="ann", to=("bob",))


def test_scenes_and_entries_come_back_as_they_were(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    row = ledger.create("", PLAN, "u1")
    assert ledger.create("", PLAN, "u2") == row
    ledger.create("other", PLAN, "u3")
    with pytest.raises(Conflict):
        ledger.create("", Scenario(name="tea", members=()), "u4")
    ledger.append("u1", [PhaseBegun(number=0, phase=0), line(1)])
    ledger.close()
    again = Ledger(tmp_path)
    assert again.read("u1") == (PhaseBegun(number=0, phase=0), line(1))
    assert again.list("") == (row,)
    again.delete("u1")
    assert again.find("", "tea") is None
    assert again.read("u1") == ()
    assert again.find("other", "tea") is not None
    again.close()
    assert (tmp_path / "scenes.sqlite").stat().st_mode & 0o777 == 0o600


def test_what_is_deleted_is_in_no_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create("", PLAN, "u1")
    ledger.append("u1", [line(0, "The secret is xyzzy.")])
    ledger.delete("u1")
    files = [f.read_bytes() for f in tmp_path.iterdir()]
    ledger.close()
    assert not any(b"xyzzy" in content for content in files)


def test_entries_are_written_all_or_none_and_never_over_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.create("", PLAN, "u1")
    ledger.append("u1", [line(0)])
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.append("u1", [line(1), line(0, "Something else.")])
    assert ledger.read("u1") == (line(0),)
    ledger.close()


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.test_ledger import Ledger, PLAN, line\n"
        "ledger = Ledger(Path(sys.argv[1])); ledger.create('', PLAN, 'u1')\n"
        "for n in range(5): ledger.append('u1', [line(n)]); print(n, flush=True)\n"
        "time.sleep(60)"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "4":
            pass
        os.kill(process.pid, signal.SIGKILL)
    ledger = Ledger(tmp_path)
    assert ledger.read("u1") == tuple(line(n) for n in range(5))
    ledger.close()


def test_a_foreign_or_later_ledger_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.close()
    db = sqlite3.connect(tmp_path / "scenes.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreTooNew):
        Ledger(tmp_path)
    (tmp_path / "scenes.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnusable):
        Ledger(tmp_path)
