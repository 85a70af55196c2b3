"""Processes under measurement: the real server over its real door, and the bare engine."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import ROOT
from greenroom.runtime.layers import load_settings

SILENCE_S = 300.0
"""How long a server may send nothing before it is given up."""


class Answer(NamedTuple):
    """One streamed turn, timed by the client: seconds until its first text and until its end.

    ``arrivals`` are the times of every piece of text on the client's clock (``perf_counter``);
    ``complete`` is false for one that was given up.
    """

    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float
    total_s: float
    head: str
    sent: float
    arrivals: tuple[float, ...]
    complete: bool


class Refused(Exception):
    """The server has answered with an error; the message is its own."""


Watch = Callable[[int], bool]
"""Called with the number of pieces of text so far; False gives the turn up."""


def ask(
    url: str,
    name: str | None,
    messages: list[dict[str, str]],
    max_tokens: int = 8,
    watch: Watch = lambda _: True,
    model: str = "default",
) -> Answer:
    """One greedy streamed turn of the server at ``url``, of the agent ``name`` if one is named.

    Raises Refused, and OSError where nothing comes for SILENCE_S.
    """
    body = {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **({"X-Agent-Name": name} if name else {})},
    )
    text, arrivals, sent = "", list[float](), time.perf_counter()
    last: dict[str, Any] = {}
    with urllib.request.urlopen(request, timeout=SILENCE_S) as response:
        for line in response:
            field, _, data = line.decode().strip().partition(": ")
            if field != "data" or data == "[DONE]":  # a comment keeps a silent stream alive
                continue
            try:
                chunk = json.loads(data)
            except json.JSONDecodeError:
                raise Refused(f"an event that is no JSON: {data[:200]}") from None
            if "error" in chunk:
                raise Refused(str(chunk["error"]))
            if new := "".join(c["delta"].get("content") or "" for c in chunk["choices"] or []):
                arrivals.append(time.perf_counter())
                text += new
                if not watch(len(arrivals)):
                    break
            last.update({k: chunk[k] for k in ("usage", "greenroom") if chunk.get(k)})
    usage = last.get("usage", {})
    return Answer(
        text=text,
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        ttft_s=arrivals[0] - sent if arrivals else 0.0,
        total_s=time.perf_counter() - sent,
        head=last.get("greenroom", {}).get("head", ""),
        sent=sent,
        arrivals=tuple(arrivals),
        complete="usage" in last,
    )


class Server:
    """A server process on ``home``, which it keeps when it is killed and started again."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self._home = home
        self._arguments = arguments
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self, *arguments: str) -> float:
        """Start it, with further ``arguments`` for this once, and wait until it serves.

        Returns the seconds that took.
        """
        begun = time.perf_counter()
        command = [sys.executable, "-m", "greenroom", "serve", "--home", str(self._home)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--set", "log.level=warning", *self._arguments, *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "http://" in line:
                self.url = line.split()[-1]
                return time.perf_counter() - begun
        sys.exit("the server did not come up")

    def kill(self) -> None:
        """End it without warning."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = None

    def bytes_written(self) -> int:
        """Bytes of files in the store."""
        return sum(f.stat().st_size for f in (self._home / "store").rglob("*") if f.is_file())

    def ask(self, name: str, messages: list[dict[str, str]], max_tokens: int = 8) -> Answer:
        """One greedy streamed turn of the agent ``name``."""
        return ask(self.url, name, messages, max_tokens)


class BareEngine:
    """``engine.py`` as a process: "raw" or "floor"."""

    def __init__(self, model: Path, kind: str) -> None:
        command = [sys.executable, "-m", "benchmarks.engine", str(model), kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        self._read()

    def ask(self, **request: object) -> Any:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the bare engine has ended")
        return json.loads(line)


@contextmanager
def shared_models(home: Path) -> Iterator[Path]:
    """``home`` without memories, with the models that are there already."""
    models = load_settings().settings.models_path
    models.mkdir(parents=True, exist_ok=True)
    (home / "models").symlink_to(models)
    yield home
