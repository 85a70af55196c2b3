"""The example programs run as a user would run them."""

import subprocess
import sys

from tests.server import ROOT


def test_restart_chat() -> None:
    """The third turn, after a SIGKILL, finds at least 95 % of the earlier context remembered."""
    script = ROOT / "examples" / "restart_chat.py"
    run = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split(maxsplit=6) for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == ["turn", "1", "2", "(killed)", "3", "(killed)"]
    (_, _, _, _, _, _, _), second, _, third, _ = rows[1:]
    earlier = int(second[1]) + int(second[3])
    assert int(third[2]) >= 0.95 * earlier
    assert "Paris" in second[6]
