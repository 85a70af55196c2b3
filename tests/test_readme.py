"""Every command and program in the README does what a reader would expect of it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import ROOT, Server, make_home, running

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SHELL = [text for language, text in BLOCKS if language == "sh"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
ADDRESS = "localhost:8000"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as the README starts it, on a home and a port of its own."""
    home = make_home(tmp_path_factory.mktemp("served") / "home")
    command = ("make", "serve", f"ARGS=--home {home} --port 0")
    with running(home, command=command) as server:
        yield server
        server.stop()


def run(command: list[str], home: Path, **more: str) -> str:
    """Run a command at the repository's top; its output, or fail with what it said."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "GREENROOM_HOME": str(home), **more},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


def test_the_first_screen_has_the_two_commands() -> None:
    first_screen = "\n".join(README.splitlines()[:25])
    assert "make serve" in first_screen
    assert "make test" in first_screen
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.parametrize("block", SHELL)
def test_shell_commands(block: str, served: Server, tmp_path: Path) -> None:
    if block == "make serve\n":
        assert "http://" in served.log  # the fixture has run it
    elif block == "make test\n":
        # We are inside it: only look at what it would run.
        assert "pytest" in run(["make", "--dry-run", "test"], tmp_path)
    elif "restart_chat.py" in block:
        # test_examples.py runs it.
        assert (ROOT / block.split()[1]).is_file()
    else:
        if "curl" in block and shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        venv = Path(sys.executable).parent
        block = block.replace(ADDRESS, address(served)).replace(".venv/bin", str(venv))
        output = run(["bash", "-ec", block], tmp_path)
        assert ("Paris" in output) == ("curl" in block)


@pytest.mark.parametrize("block", PYTHON)
def test_python_programs(block: str, served: Server, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    output = run([sys.executable, "-c", block.replace(ADDRESS, address(served))], home)
    assert output.strip()
    if "temperature=0" in block:
        assert "Paris" in output
