"""A conversation that survives a SIGKILL.

Starts a server on a home of its own, has two turns with alice, kills the server, starts it again
and goes on with the third: alice continues from what she had on disk, not from the beginning.
"""

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from greenroom.runtime.layers import load_settings

SYSTEM = """You are Alice, the guide of a small museum of clocks. You answer in one sentence.
The museum has three rooms. The first shows sundials and water clocks: the oldest sundial was found
in Egypt, and the largest water clock still runs on the first Sunday of each month. The second shows
pendulum clocks, among them a copy of the one that Christiaan Huygens built in 1656, and a marine
chronometer that went around the world twice and lost eleven seconds. The third shows quartz and
atomic clocks; visitors may open one and look at the crystal. The museum is open from ten to five,
on Thursdays until eight, and it is closed on Mondays."""
TURNS = (
    ("Which room has the pendulum clocks?", "What is the capital of France?"),
    ("When is the museum closed?",),
)


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """A server process on ``home``, killed without warning at the end; gives its URL."""
    command = [sys.executable, "-m", "greenroom", "serve", "--json", "--port", "0"]
    command += [f"--home={home}", "--set=log.level=error"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.kill()
        server.communicate()


def ask(url: str, messages: list[dict[str, str]]) -> Any:
    """One turn of alice's, over OpenAI's API."""
    body = {"messages": messages, "temperature": 0, "max_tokens": 32}
    headers = {"Content-Type": "application/json", "X-Agent-Name": "alice"}
    path = f"{url}/v1/chat/completions"
    request = urllib.request.Request(path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def main(home: Path) -> None:
    messages = [{"role": "system", "content": SYSTEM}]
    print("turn  prompt  cached  answer   TTFT")
    for questions in TURNS:
        with serving(home) as url:
            for question in questions:
                messages.append({"role": "user", "content": question})
                answer = ask(url, messages)
                text = answer["choices"][0]["message"]["content"]
                messages.append({"role": "assistant", "content": text})
                usage, ttft_ms = answer["usage"], answer["greenroom"]["timings"]["ttft_ms"]
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                print(
                    f"{len(messages) // 2:>4}  {usage['prompt_tokens']:>6}  {cached:>6}"
                    f"  {usage['completion_tokens']:>6}  {ttft_ms:>5.0f} ms  {text.strip()}"
                )
        print("      (killed)", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        main(Path(folder))
