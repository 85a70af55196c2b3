"""Lag of the event loop: how much later than asked a timer of one millisecond rings.

In one process: the loop idle; then two agents generating and persisting turn after turn through the
Python door; then the same over this process's HTTP door, with the clients in processes of their
own. Each time beside a bare loop in another process, which shows what the machine itself adds while
its cores are busy.

    python -m benchmarks.lag [--seconds 20] [--prompt 512] [--repeats 3] [--json [FILE]]
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

import greenroom
from benchmarks.figures import add_outputs, quantile, write_json
from benchmarks.prose import Prose, default_model
from benchmarks.serving import ask, shared_models
from greenroom.actors.room import Room

TICK_S = 0.001
TOKENS = 48


class Lags(msgspec.Struct, frozen=True):
    """Milliseconds over the ticks of one phase, of this loop or of the bare one beside it."""

    phase: str
    loop: str
    num_ticks: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


class Options(argparse.Namespace):
    """What can be said on the command line."""

    seconds: float
    prompt: int
    repeats: int
    json: Path | None


async def probe(seconds: float) -> list[float]:
    """Lags in milliseconds on the running loop for so long."""
    lags = []
    last = time.perf_counter()
    until = last + seconds
    while last < until:
        await asyncio.sleep(TICK_S)
        now = time.perf_counter()
        lags.append(1e3 * (now - last - TICK_S))
        last = now
    return lags


def bare(seconds: float) -> list[float]:
    """The lags of a loop that does nothing else, in a process of its own."""
    return uvloop.run(probe(seconds))


def summed(phase: str, loop: str, lags: Sequence[float]) -> Lags:
    """Quantiles."""
    cuts = (quantile(lags, share) for share in (0.5, 0.99, 0.999, 1.0))
    return Lags(phase, loop, len(lags), *cuts)


class Talk:
    """Agents that take turns of new prompts until they are told to end."""

    def __init__(self, room: Room, url: str, prose: Prose, length: int) -> None:
        self._room = room
        self._url = url
        self._prose = prose
        self._length = length
        self._number = 0
        self.turns = 0
        self.over = False

    async def python(self) -> None:
        """Through the Python door."""
        self._number += 1
        agent = await self._room.spawn(f"python-{self._number}")
        while not self.over:
            prompt = await asyncio.to_thread(self._prose.question, self._length)
            async for _ in agent.stream(prompt[-1]["content"], max_tokens=TOKENS):
                pass
            self.turns += 1

    async def http(self, clients: ProcessPoolExecutor) -> None:
        """Through the HTTP door."""
        self._number += 1
        name = f"http-{self._number}"
        loop = asyncio.get_running_loop()
        while not self.over:
            prompt = await asyncio.to_thread(self._prose.question, self._length)
            await loop.run_in_executor(clients, ask, self._url, name, prompt, TOKENS)
            self.turns += 1


async def measure(home: Path, prose: Prose, options: Options) -> tuple[list[Lags], list[int]]:
    """All phases, and how many turns ended in each of the busy ones."""
    loop = asyncio.get_running_loop()
    context = get_context("spawn")
    with ProcessPoolExecutor(1, context) as aside, ProcessPoolExecutor(2, context) as clients:
        async with greenroom.open(home=home) as room, room.serve(port=0) as url:
            talk = Talk(room, url, prose, options.prompt)
            makes: dict[str, Callable[[], list[Coroutine[Any, Any, None]]]] = {
                "idle": list,
                "python": lambda: [talk.python() for _ in range(2)],
                "http": lambda: [talk.http(clients) for _ in range(2)],
            }
            lags: dict[tuple[str, str], list[float]] = {}
            turns = []
            await loop.run_in_executor(aside, bare, 0.1)
            for _ in range(options.repeats):
                for phase, make in makes.items():
                    before, talk.over = talk.turns, False
                    tasks = [asyncio.ensure_future(work) for work in make()]
                    if tasks:
                        await asyncio.sleep(1)
                    beside = loop.run_in_executor(aside, bare, options.seconds)
                    lags.setdefault((phase, "greenroom"), []).extend(await probe(options.seconds))
                    lags.setdefault((phase, "bare"), []).extend(await beside)
                    talk.over = True
                    await asyncio.gather(*tasks)
                    turns.append(talk.turns - before)
    return [summed(*key, values) for key, values in lags.items()], turns


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="lag of the event loop, idle and busy")
    parser.add_argument("--seconds", type=float, default=20, help="per phase and repeat")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of each new prompt")
    parser.add_argument("--repeats", type=int, default=3)
    add_outputs(parser, "lag")
    options = parser.parse_args(arguments, Options())
    prose = Prose(default_model())
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        found, turns = uvloop.run(measure(home, prose, options))
    table = Table("phase", "loop", "ticks", "p50", "p99", "p99.9", "max", box=None)
    for lags in found:
        cuts = (lags.p50_ms, lags.p99_ms, lags.p999_ms, lags.max_ms)
        cells = [f"{ms:.2f} ms" for ms in cuts]
        table.add_row(lags.phase, lags.loop, str(lags.num_ticks), *cells)
    Console(width=120).print(table)
    print(f"turns that ended per phase: {turns}")
    write_json(options.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
