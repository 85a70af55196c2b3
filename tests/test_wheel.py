"""The README's Python program from an installed wheel, in an environment of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.server import ROOT, Server, make_home, running

README = (ROOT / "README.md").read_text("utf-8")
(PROGRAM,) = re.findall(r"^```python\n([^`]*greenroom\.open\(\)[^`]*)^```$", README, re.MULTILINE)

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel; of this environment it borrows the dependencies."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", work, source, cwd=work)
    run(sys.executable, "-m", "venv", work / "clean", cwd=work)
    python = work / "clean" / "bin" / "python"
    wheel = next(work.glob("greenroom-*.whl"))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=work)
    site = Path(
        run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=work).strip()
    )
    (site / "borrowed.pth").write_text(f"{Path(msgspec.__file__).parent.parent}\n")
    where = run(python, "-c", "import greenroom; print(greenroom.__file__)", cwd=work)
    assert where.startswith(str(site))
    return python


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(make_home(tmp_path_factory.mktemp("served") / "home")) as server:
        yield server


def test_in_process(python: Path, tmp_path: Path) -> None:
    home = str(make_home(tmp_path / "home"))
    told = run(python, "-c", PROGRAM, cwd=tmp_path, env={"GREENROOM_HOME": home})
    assert len(told.split()) > 3


def test_far_away(python: Path, tmp_path: Path, served: Server) -> None:
    program = PROGRAM.replace("greenroom.open()", f'greenroom.connect("{served.url}")')
    assert program != PROGRAM
    told = run(python, "-c", program, cwd=tmp_path, env={"GREENROOM_HOME": str(tmp_path)})
    assert len(told.split()) > 3


def test_the_command(python: Path, tmp_path: Path) -> None:
    command = python.with_name("greenroom")
    assert "doctor" in run(command, "--help", cwd=tmp_path)
