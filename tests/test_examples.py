"""The example programs run as a user would run them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server import ROOT
from tests.wheel import environment

EXAMPLES = ROOT / "examples"
Play = Callable[[str], str]


class Stranger:
    """Somebody with an interpreter, and the examples in a folder of their own."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        self.folder = Path(shutil.copytree(EXAMPLES, folder / "examples"))

    def play(self, name: str, timeout: float = 280) -> str:
        """Run an example to its end; what it has printed."""
        run = subprocess.run(
            [self.python, self.folder / name],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.folder.parent,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout


@pytest.fixture
def stranger(wheel_python: Path, tmp_path: Path) -> Stranger:
    """Has installed the wheel."""
    return Stranger(wheel_python, tmp_path)


@pytest.fixture(params=["here", pytest.param("wheel", marks=pytest.mark.slow)])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    """Runs an example in this environment, and in one with the installed wheel."""
    here = request.param == "here"
    python = Path(sys.executable) if here else request.getfixturevalue("wheel_python")
    return Stranger(python, tmp_path).play


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.*")), ids=lambda file: file.name)
def test_an_example_is_short_and_says_what_it_is(file: Path) -> None:
    text = file.read_text()
    if file.suffix != ".md":
        assert len(text.splitlines()) < 80
        assert file.name in (EXAMPLES / "README.md").read_text()
    if file.suffix == ".py":
        assert text.startswith('"""')


def test_restart_chat(play: Play) -> None:
    """The third turn, after a SIGKILL, finds at least 95 % of the earlier context remembered."""
    rows = [line.split(maxsplit=6) for line in play("restart_chat.py").splitlines()]
    assert [row[0] for row in rows] == ["turn", "1", "2", "(killed)", "3", "(killed)"]
    (_, _, _, _, _, _, _), second, _, third, _ = rows[1:]
    earlier = int(second[1]) + int(second[3])
    assert int(third[2]) >= 0.95 * earlier
    assert "Paris" in second[6]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_debate(stranger: Stranger) -> None:
    shown = stranger.play("debate.py")
    assert len(re.findall(r"^(Ann|Bob|Cid): \S", shown, re.MULTILINE)) >= 5
    assert (
        len(
            re.findall(r"^(Ann|Bob|Cid) ranked the (?:sea|mountains|forest), ", shown, re.MULTILINE)
        )
        == 3
    )
    secrets = re.findall(r"^(\w+) knows \d+ lines, (\d) of them in secret", shown, re.MULTILINE)
    assert secrets == [("Ann", "0"), ("Bob", "0"), ("Cid", "1")]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_fork_tree(stranger: Stranger) -> None:
    shown = stranger.play("fork_tree.py")
    shared = re.findall(r"^story\.\d: (\d+) of (\d+) tokens shared", shown, re.MULTILINE)
    assert len(shared) == 4
    for cached, prompt in shared:
        assert int(cached) > 0.8 * int(prompt)
    kept = re.search(r"kept: (story\.\d); agents now: story, (story\.\d)$", shown, re.MULTILINE)
    assert kept is not None
    assert kept[1] == kept[2]
    assert "the end: " in shown


@pytest.mark.slow
def test_tool_agent(play: Play) -> None:
    shown = play("tool_agent.py")
    called = re.findall(r'calls stock\(\{"fruit": ?"(\w+)"\}\) -> The shop has \d+ (\w+)\.', shown)
    assert len(called) == 2
    assert all(asked == told for asked, told in called)
    assert shown.count("answers (") == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_langchain_chat(wheel: Path, tmp_path: Path) -> None:
    """With the package that its docstring asks for."""
    python = environment(tmp_path, wheel, "langchain-openai")
    shown = Stranger(python, tmp_path).play("langchain_chat.py")
    (first, prompt), (cached, whole) = re.findall(r"\((\d+) of (\d+) tokens remembered", shown)
    assert int(first) < int(prompt) <= int(cached) < int(whole)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_dilemma(stranger: Stranger) -> None:
    shown = stranger.play("dilemma.py")
    assert re.findall(r"^— (.*) —$", shown, re.MULTILINE) == [
        "The offer",
        "The first night",
        "The second night",
        "In the yard",
        "The last night",
    ]
    assert len(re.findall(r"^  (Marco|Danny) chooses: ", shown, re.MULTILINE)) == 6
    assert (
        len(re.findall(r"^  Months so far: Marco [+-]\d+, Danny [+-]\d+$", shown, re.MULTILINE))
        == 3
    )
    rows = [line.split() for line in shown.splitlines()[-5:]]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    for _, _, prompt, cached, *_ in rows[3:]:
        assert int(cached) > 0.6 * int(prompt)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_experts(stranger: Stranger) -> None:
    shown = stranger.play("experts.py", timeout=390)
    rows = [line.split() for line in shown.splitlines()[-10:]]
    assert len(rows) == 10
    for name, chapter, _, new, *times in rows:
        assert 600 < int(chapter) < 1600, name
        assert int(new) < 30, name
        assert len(times) == 4
        assert min(map(float, times)) > 0, name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_web_page(stranger: Stranger) -> None:
    """A browser without a head opens the page, which says something and shows the answer."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium")
    with serving_page(stranger) as url:
        address, ws = url.split("#")
        done = subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--virtual-time-budget=1",
                "--timeout=60000",
                "--dump-dom",
                f"{address}?say=Hello#{ws}",
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    page = done.stdout
    assert re.search(r'<p class="you">Hello</p><p class="agent">\s*\S', page), page[-1500:]
    assert "tokens remembered" in page


@contextmanager
def serving_page(stranger: Stranger) -> Iterator[str]:
    """The example of the web page, running; the address that it says to open."""
    with subprocess.Popen(
        [stranger.python, stranger.folder / "web_page.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()
