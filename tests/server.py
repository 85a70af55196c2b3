"""The real server as a process, on a home of its own that shares the user's models."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from greenroom.runtime.layers import load_settings

ROOT = Path(__file__).parent.parent
SERVE = (sys.executable, "-m", "greenroom", "serve")


class Server:
    """A running server: its URL, what it has logged, and ways to end it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._ready = threading.Event()
        self.url = ""
        self._reader.start()
        self._ready.wait(timeout=100)
        if not self.url:
            self.kill()
            raise AssertionError(f"the server did not come up: {self.log}")

    @property
    def log(self) -> str:
        """What it has written to standard error so far."""
        return "".join(self._lines)

    def stop(self) -> int:
        """Ask it to stop and wait; its status."""
        return self._end(signal.SIGTERM)

    def interrupt(self) -> None:
        """Press Ctrl-C, and do not wait."""
        os.killpg(self._process.pid, signal.SIGINT)

    def strike(self) -> None:
        """End it without warning, and do not wait."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> int:
        """End it without warning; its status."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        if self._process.poll() is None:
            # The whole group: under make, the server is a child of what was started.
            os.killpg(self._process.pid, number)
        status = self._process.wait(timeout=60)
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
        return status

    def _read(self) -> None:
        for line in self._process.stderr or ():
            self._lines.append(line)
            if not self.url and "http://" in line:
                self.url = line.split()[-1]
                self._ready.set()
        self._ready.set()


def make_home(folder: Path) -> Path:
    """A home without memories in ``folder``; models are shared with the user's own home."""
    models = load_settings().settings.models_path
    models.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(models)
    return folder


@contextmanager
def running(home: Path, *arguments: str, command: Sequence[str] = ()) -> Iterator[Server]:
    """A server on ``home`` and a free port, killed at the end if it still runs.

    ``arguments`` are more of its command line; ``command`` is a whole one instead.
    """
    options = ("--home", str(home), "--port", "0", *arguments)
    process = subprocess.Popen(
        command or (*SERVE, *options),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    server = Server(process)
    try:
        yield server
    finally:
        server.kill()
