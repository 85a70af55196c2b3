"""Signals and the real server as a process."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from http.client import IncompleteRead
from pathlib import Path

import pytest

from tests.server import SERVE, make_home, running


def test_a_second_signal_does_not_wait_for_running_turns(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home")) as server:
        body = {
            "messages": [{"role": "user", "content": "Count to a thousand, one number a line."}],
            "max_tokens": 6000,
            "logit_bias": {"2": -100},  # what ends an answer: this one does not end by itself
            "stream": True,
        }
        request = urllib.request.Request(
            f"{server.url}/v1/chat/completions", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request) as response:  # it has started
            begun = time.monotonic()
            server.interrupt()
            assert server.stop() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
            assert time.monotonic() - begun < 10, "drain_s is 30"
            with pytest.raises((IncompleteRead, ConnectionError)):
                response.read()


def test_a_signal_while_the_model_loads_ends_the_process(tmp_path: Path) -> None:
    """Here it "loads" for ever: another process holds the lock under which a model is fetched."""
    models = tmp_path / "models"
    models.mkdir()
    hold = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(1,flush=True)"
    command = [sys.executable, "-c", f"{hold}; time.sleep(99)", str(models / "smollm2-135m.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        server = subprocess.Popen(
            [*SERVE, "--home", str(tmp_path), "--port", "0", "--device", "cpu"],
            stderr=subprocess.PIPE,
            text=True,
        )
        with server:
            assert server.stderr is not None
            assert "waiting" in server.stderr.readline()
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=10) == 0
        holder.kill()
