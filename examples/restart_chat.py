"""A conversation that survives a SIGKILL.

Starts a server on a home of its own, has two turns with alice, kills the server, starts it again
and goes on with the third: alice continues from what she had on disk, not from the beginning.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from greenroom.runtime.layers import load_settings

SYSTEM = """You are Alice, the guide of a small museum of clocks. You answer in one sentence.
The museum has three rooms. The first shows sundials and water clocks: the oldest sundial was found
in Egypt, and the largest water clock still runs on the first Sunday of each month. The second shows
pendulum clocks, among them a copy of the one that Christiaan Huygens built in 1656, and a marine
chronometer that went around the world twice and lost eleven seconds. The third shows quartz and
atomic clocks; visitors may open one and look at the crystal. The museum is open from ten to five,
on Thursdays until eight, and it is closed on Mondays. Tickets cost six euros, children pay nothing.
The cafe is in the garden behind the second room, and dogs are welcome there but not in the rooms.
"""
QUESTIONS = (
    "Which room has the pendulum clocks?",
    "What is the capital of France?",
    "When is the museum closed?",
)


class Answer(NamedTuple):
    """What came back, with its cost in tokens and the milliseconds until its first token."""

    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_ms: float


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """A server process on ``home``, killed without warning at the end; gives its URL."""
    command = [sys.executable, "-m", "greenroom", "serve", "--home", str(home), "--port", "0"]
    server = subprocess.Popen(
        [*command, "--set", "log.level=warning"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if "http://" in line:
                yield line.split()[-1]
                break
            print(line, end="", file=sys.stderr)
        else:
            sys.exit(f"the server ended with status {server.wait()}")
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        if server.stderr is not None:
            server.stderr.close()


def ask(url: str, messages: list[dict[str, str]]) -> Answer:
    """One streamed turn of alice's, at temperature 0."""
    body = {
        "messages": messages,
        "temperature": 0,
        "max_tokens": 48,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "X-Agent-Name": "alice"},
    )
    text, ttft_ms, begun = "", 0.0, time.perf_counter()
    usage: dict[str, Any] = {}
    with urllib.request.urlopen(request) as response:
        for line in response:
            data = line.decode().removeprefix("data: ").strip()
            if not data or data == "[DONE]":
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                sys.exit(chunk["error"]["message"])
            new = "".join(choice["delta"].get("content", "") for choice in chunk["choices"])
            if new and not text:
                ttft_ms = (time.perf_counter() - begun) * 1000
            text += new
            usage = chunk.get("usage") or usage
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return Answer(text, usage["prompt_tokens"], cached, usage["completion_tokens"], ttft_ms)


def converse(home: Path) -> None:
    """Two turns, a kill, a third turn; one printed line for each."""
    messages = [{"role": "system", "content": SYSTEM}]
    print("turn  prompt  cached  answer   TTFT")
    for turns in (QUESTIONS[:2], QUESTIONS[2:]):
        with serving(home) as url:
            for question in turns:
                messages.append({"role": "user", "content": question})
                answer = ask(url, messages)
                messages.append({"role": "assistant", "content": answer.text})
                print(
                    f"{QUESTIONS.index(question) + 1:>4}  {answer.prompt_tokens:>6}"
                    f"  {answer.cached_tokens:>6}  {answer.completion_tokens:>6}"
                    f"  {answer.ttft_ms:>5.0f} ms  {answer.text.strip()}",
                    flush=True,
                )
        print("      (killed)", flush=True)


def main() -> None:
    """Run on a temporary home that shares the models you have already."""
    models = load_settings().settings.models_path
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="greenroom-") as home:
        Path(home, "models").symlink_to(models)
        converse(Path(home))


if __name__ == "__main__":
    main()
