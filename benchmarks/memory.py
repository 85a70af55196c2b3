"""What agents at rest take: RAM over the idle server, and bytes for a shared system prompt.

A real server over HTTP with the default model. Its resident set is read before any turn ("idle")
and a few seconds after each agent's turn of ``--tokens`` prompt tokens; decoded copies are switched
off, since they are a cache of their own. Then ten agents with one system prompt of ``--system``
tokens: what each adds to the store.

    python -m benchmarks.memory [--agents 8] [--tokens 1024] [--system 2048] [--json [FILE]]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import add_outputs, write_json
from benchmarks.prose import Prose, default_model
from benchmarks.serving import Server, shared_models

SHARERS = 10
SETTLE_S = 3.0
MIB = 2**20


def rss_bytes(pid: int) -> int:
    """The resident set of a process, as the system tells it on Linux and macOS."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(told.stdout) * 1024


def settled(server: Server) -> float:
    """MiB of the server's resident set after a pause without work."""
    time.sleep(SETTLE_S)
    assert server.process is not None
    return rss_bytes(server.process.pid) / MIB


def at_rest(server: Server, prose: Prose, agents: int, tokens: int) -> dict[str, Any]:
    """RAM and disk as agents come to rest, one after the other."""
    idle, disk = settled(server), server.bytes_written()
    steps: list[float] = []
    times: list[float] = []
    prompt_tokens = 0
    for number in range(agents):
        answer = server.ask(f"agent-{number}", prose.question(tokens))
        prompt_tokens += answer.prompt_tokens
        times.append(answer.ttft_s)
        steps.append(settled(server) - idle)
        print(f"{number + 1} agents: {steps[-1]:+.0f} MiB", file=sys.stderr, flush=True)
    return {
        "idle_mib": idle,
        "over_idle_mib": steps,
        "prompt_tokens": prompt_tokens,
        "encoded_mib": (server.bytes_written() - disk) / MIB,
        "ttft_s": times,
    }


def shared(server: Server, prose: Prose, tokens: int) -> list[int]:
    """Bytes that each of ten agents with one system prompt adds to the store."""
    system = {"role": "system", "content": prose.passage(tokens)}
    added: list[int] = []
    for number in range(SHARERS):
        before = server.bytes_written()
        question = {"role": "user", "content": f"This is question {number}. What is asked?"}
        answer = server.ask(f"sharer-{number}", [system, question])
        added.append(server.bytes_written() - before)
        print(
            f"sharer {number}: {answer.cached_tokens} of {answer.prompt_tokens} cached, "
            f"{added[-1]} bytes",
            file=sys.stderr,
            flush=True,
        )
    return added


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="RAM and disk of agents at rest")
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--system", type=int, default=2048)
    parser.add_argument("--set", action="append", default=[], help="a setting of the server")
    add_outputs(parser, "memory")
    options = parser.parse_args(arguments)
    prose = Prose(default_model())
    extra = [part for setting in options.set for part in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        server = Server(home, "--set", "memory.resident_budget_mb=0", *extra)
        server.start()
        try:
            rest = at_rest(server, prose, options.agents, options.tokens)
            added = shared(server, prose, options.system) if options.system else []
        finally:
            server.kill()
    print(
        f"{options.agents} agents, {rest['prompt_tokens']} prompt tokens: "
        f"{rest['over_idle_mib'][-1]:+.0f} MiB over {rest['idle_mib']:.0f} MiB idle; "
        f"{rest['encoded_mib']:.0f} MiB encoded on disk"
    )
    if added:
        first, others = added[0] / 1e6, sum(added[1:]) / 1e6
        print(f"one system prompt of {options.system} tokens for {SHARERS} agents:")
        print(f"the first added {first:.2f} MB, the other {SHARERS - 1} together {others:.2f} MB")
    write_json(options.json, {"at_rest": rest, "shared_bytes": added})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
