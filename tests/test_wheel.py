"""The README's Python program from an installed wheel, in an environment of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT, Server, make_home, running
from tests.wheel import run

README = (ROOT / "README.md").read_text("utf-8")
(PROGRAM,) = re.findall(r"^```python\n([^`]*greenroom\.open\(\)[^`]*)^```$", README, re.MULTILINE)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(make_home(tmp_path_factory.mktemp("served") / "home")) as server:
        yield server


def test_in_process(wheel_python: Path, tmp_path: Path) -> None:
    home = str(make_home(tmp_path / "home"))
    told = run(wheel_python, "-c", PROGRAM, cwd=tmp_path, env={"GREENROOM_HOME": home})
    assert len(told.split()) > 3


def test_far_away(wheel_python: Path, tmp_path: Path, served: Server) -> None:
    program = PROGRAM.replace("greenroom.open()", f'greenroom.connect("{served.url}")')
    assert program != PROGRAM
    told = run(wheel_python, "-c", program, cwd=tmp_path, env={"GREENROOM_HOME": str(tmp_path)})
    assert len(told.split()) > 3


def test_the_command(wheel_python: Path, tmp_path: Path) -> None:
    command = wheel_python.with_name("greenroom")
    assert "doctor" in run(command, "--help", cwd=tmp_path)
