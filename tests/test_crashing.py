"""SIGKILL at random points of writing, linking, committing and collecting: nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def kill(store: Path, number: int, seed: int) -> list[str]:
    """Where processes were killed. Fails when a turn that was acknowledged is lost, or when the
    store is not well afterwards."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.crashing", str(store), str(number), str(seed)],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [each for each in told if each["wrong"]] == []
    assert told[-1]["agents"] == 5
    return [each["killed"] for each in told]


def test_a_few_kills_lose_nothing(tmp_path: Path) -> None:
    assert len(kill(tmp_path / "store", 8, 1)) == 8


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    killed = kill(tmp_path / "store", 100, 7)
    assert len(killed) == 100
    kinds = {each.split()[0] for each in killed}
    assert kinds == {"create", "write", "sync", "sync_folder", "link", "unlink", "commit", "time"}
