"""``greenroom chat`` in a real terminal, and the commands around it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from greenroom.actors.cli import main
from tests.server import ROOT, make_home, running

CACHED = r"cached (\d+) of (\d+)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("chat") / "home")


def greenroom(*arguments: str, said: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "greenroom", *arguments],
        input=said,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=110,
    )


def terminal(*arguments: str) -> pexpect.spawn:
    command = ["-m", "greenroom", "chat", *arguments, "--temperature", "0"]
    return pexpect.spawn(
        sys.executable, command, cwd=str(ROOT), timeout=100, encoding="utf-8", dimensions=(40, 200)
    )


def lines(output: str) -> Iterator[dict[str, object]]:
    for line in output.splitlines():
        yield json.loads(line)


@pytest.mark.slow
def test_stream_cancel_fork_restart_go_on(home: Path) -> None:
    chat = terminal("alice", "--home", str(home), "--max-tokens", "400")
    chat.expect("alice> ")
    chat.sendline("What is the capital of France?")
    chat.expect("Paris")
    chat.expect(CACHED)
    assert chat.match.group(1) == "0"
    assert re.search(r"TTFT \d+ ms", chat.readline())

    chat.expect("alice> ")
    chat.sendline("Count from one to one thousand, slowly, in words.")
    chat.expect("\r\n")  # the echo
    chat.expect(r"\w+ \w+")  # the answer is under way
    chat.sendintr()
    chat.expect("cancelled; it is not remembered")
    chat.expect("alice> ")
    chat.sendintr()
    chat.expect("/quit leaves")

    chat.expect("alice> ")
    chat.sendline("/fork carol")
    chat.expect("carol> ")
    chat.sendline("And of Italy?")
    chat.expect("Rome")
    chat.expect(CACHED)
    assert int(chat.match.group(1)) > 20
    chat.expect("carol> ")
    chat.sendline("/log")
    chat.expect("generation")
    chat.expect("carol> ")
    chat.sendline("/quit")
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0

    again = terminal("carol", "--home", str(home))
    again.expect("carol> ")
    again.sendline("Which two countries did I ask about?")
    again.expect(CACHED)
    cached, prompt = map(int, again.match.groups())
    assert cached >= 0.6 * prompt
    again.expect("carol> ")
    again.sendeof()
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus == 0


def test_against_a_running_server(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A conversation in JSON, and what can be done with the agent: one server, many commands."""

    def tended(*arguments: str, status: int = 0) -> str:
        """What a command prints: its answer, or its complaint."""
        assert main(["agents", *arguments]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    with running(home, "--set", "server.api_key=sesame") as server:
        reach = ("--url", server.url, "--key", "sesame")
        said = "Hello\n/fork erin\nAnd?\n/hear It rains.\n/rollback nowhere\n"
        chat = greenroom("chat", "dave", *reach, "--json", "--max-tokens", "6", said=said)
        assert chat.returncode == 0, chat.stderr
        first, fork, second, heard, trouble = lines(chat.stdout)
        assert (first["agent"], fork["agent"], heard["agent"]) == ("dave", "erin", "erin")
        usage = second["usage"]
        assert isinstance(usage, dict)
        assert usage["cached_tokens"] > 0
        assert "NotFound" in str(trouble["error"])

        shown = json.loads(tended("show", "dave", *reach, "--json"))
        assert shown["agent"]["head"] == first["head"] == shown["log"][-1]["id"]
        assert "generation" in tended("show", "dave", *reach)
        file = str(tmp_path / "dave.agent")
        tended("export", "dave", file, *reach)
        tended("forget", "dave", *reach)
        gone = json.loads(tended("show", "dave", *reach, "--json", status=3))
        assert gone["error"]["type"] == "NotFound"
        tended("import", file, *reach)
        tended("fork", "dave", "fay", "--at", shown["log"][0]["id"][:12], *reach)
        names = [agent["name"] for agent in json.loads(tended(*reach, "--json"))]
        assert {"dave", "erin", "fay"} <= set(names)

        assert "--url" in tended("list", "--home", str(home), status=4)
        assert "key is wrong" in tended("list", "--url", server.url, "--key", "wrong", status=2)
    assert "cannot be reached" in tended("list", *reach, status=4)


@pytest.mark.slow
def test_bench(home: Path) -> None:
    done = greenroom("bench", "--home", str(home), "--tokens", "1000", "--repeats", "3", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["prompt_tokens"] > 750
    assert figures["follow_up_ttft_ms"] < figures["cold_ttft_ms"]
