"""What Python's door adds: to one turn, and to a thousand agents at once.

A turn's whole time as the caller of ``say`` sees it, over the stage's own time for it (from when
the stage takes it until its last token); without and with waiting until it is durable. Then a
thousand agents spawned (each is a row on disk) and told something, and a thousand actors.

    python -m benchmarks.api [--turns 20] [--tokens 48] [--repeats 5] [--json [FILE]]
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

import greenroom
from benchmarks.figures import Figure, add_outputs, figure, write_json
from benchmarks.serving import shared_models
from greenroom.actors.room import LocalRoom

MANY = 1000
PROMPT = "Name a city, and say in a sentence what it is known for. "


class Told(greenroom.Message, frozen=True):
    """Something."""


class Listener(greenroom.Actor[Told]):
    """Hears it."""

    async def handle(self, message: Told) -> None:
        """Nothing to do."""


class Overheads(msgspec.Struct, frozen=True):
    """Ratios of a turn's whole time to the stage's, and seconds for a thousand."""

    say_over_stage: Figure
    durable_say_over_stage: Figure
    agents_spawned_s: Figure
    agents_told_s: Figure
    actors_spawned_and_told_s: Figure


class Options(argparse.Namespace):
    """What can be said on the command line."""

    turns: int
    tokens: int
    repeats: int
    json: Path | None


async def ratios(room: LocalRoom, options: Options) -> list[float]:
    """Whole time over stage time for turn after turn of one agent; the first only warms up."""
    agent = await room.spawn(f"speaker-{time.time_ns()}")
    found = []
    for _ in range(options.turns + 1):
        begun = time.perf_counter()
        reply = await agent.say(PROMPT, max_tokens=options.tokens, temperature=0)
        whole_ms = 1e3 * (time.perf_counter() - begun)
        timings = reply.timings
        found.append(whole_ms / (timings.ttft_ms - timings.queue_ms + timings.decode_ms))
    return found[1:]


async def thousand(room: LocalRoom) -> tuple[float, float, float]:
    """Seconds: agents spawned, agents told, actors spawned and told."""
    salt, begun = time.time_ns(), time.perf_counter()
    agents = await asyncio.gather(*(room.spawn(f"{salt}-{n}") for n in range(MANY)))
    spawned = time.perf_counter()
    await asyncio.gather(*(agent.hear("It rains.") for agent in agents))
    told = time.perf_counter()
    for n in range(MANY):
        room.actors.spawn(f"{salt}-{n}", Listener).tell(Told())
    return spawned - begun, told - spawned, time.perf_counter() - told


async def measure(homes: Sequence[Path], options: Options) -> Overheads:
    """All of it; every thousand in a home of its own, so that none hears beside another."""
    home = homes[0]
    async with greenroom.open(home=home, memory__durability="async") as room:
        plain = await ratios(room, options)
    async with greenroom.open(home=home) as room:
        durable = await ratios(room, options)
    many: list[tuple[float, float, float]] = []
    for other in homes[1:]:
        async with greenroom.open(home=other) as room:
            many.append(await thousand(room))
    spawned, told, actors = zip(*many, strict=True)
    return Overheads(figure(plain), figure(durable), figure(spawned), figure(told), figure(actors))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    add_outputs(parser, "api")
    options = parser.parse_args(arguments, namespace=Options())
    with tempfile.TemporaryDirectory(prefix="greenroom-bench-") as folder, ExitStack() as stack:
        homes = [Path(folder, str(n)) for n in range(options.repeats + 1)]
        for home in homes:
            home.mkdir()
            stack.enter_context(shared_models(home))
        found = uvloop.run(measure(homes, options))
    table = Table("what", "median (95 %)", "goal", box=None)
    table.add_row("say over the stage's own time", str(found.say_over_stage), "1.02")
    table.add_row("the same, durable", str(found.durable_say_over_stage), "")
    table.add_row(f"{MANY} agents spawned, s", str(found.agents_spawned_s), "")
    table.add_row(f"{MANY} agents told, s", str(found.agents_told_s), "1 with the above")
    table.add_row(f"{MANY} actors spawned and told, s", str(found.actors_spawned_and_told_s), "")
    Console().print(table)
    write_json(options.json, found)


if __name__ == "__main__":
    main()
