"""What hearing saves who is asked, and what it costs who speaks.

The default model in this process, pairs in turn.

heard      an agent that has heard ``--heard`` tokens while the stage had room is asked a short
           question, and one that has as much behind it and nothing new: times to the first token
others     an agent decodes, undisturbed and then with a newcomer of ``--newcomer`` tokens, with
           another being told something all the time and with nobody: median, p95 and largest gap
           between its tokens before the newcomer comes, and the newcomer's time to its first token

    python -m benchmarks.hearing [--parts heard,others] [--repeats 5] [--heard 1024]
                                 [--newcomer 256] [--json [FILE]]
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import add_outputs, figure, quantile, write_json
from benchmarks.prose import Prose, default_model
from benchmarks.serving import shared_models
from greenroom.actors.app import open_house
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.agent_records import HearRequest
from greenroom.runtime.layers import load_settings
from greenroom.runtime.limits import MOST_BACKGROUND_S
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest

CONTEXT = 512
"""Tokens behind whoever decodes."""
CALM = 64
"""Tokens before the newcomer comes."""
PIECE = 100
"""Tokens of what is told at once."""


class Options(argparse.Namespace):
    """What can be said on the command line."""

    parts: str
    repeats: int
    heard: int
    newcomer: int
    json: Path | None


class Hearsay:
    """Somebody who is told something all the time, or nobody."""

    def __init__(self, house: Playhouse, prose: Prose, agent: str | None) -> None:
        self._house = house
        self._prose = prose
        self._agent = agent
        self.over = asyncio.Event()

    async def tell(self) -> None:
        """Keep two pieces waiting until it is over."""
        while self._agent is not None and not self.over.is_set():
            pending = (await self._house.heard("", self._agent, settled=False)).num_pending
            for _ in range(2 - pending):
                told = await asyncio.to_thread(self._prose.passage, PIECE)
                await self._house.hear(HearRequest(agent=self._agent, content=told))
            await asyncio.sleep(0.2)


async def ask(
    house: Playhouse,
    agent: str,
    content: str,
    max_tokens: int,
    arrived: Callable[[], object] = lambda: None,
) -> TurnDone:
    """One greedy turn; ``arrived`` is called for each of its tokens."""
    request = TurnRequest(
        messages=(ChatMessage("user", content),),
        mode="say",
        agent=agent,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
    )
    async with opened(house, request) as turn:
        async for event in turn:
            if isinstance(event, TurnDone):
                return event
            if event.tokens:
                arrived()
    sys.exit("a turn has not ended")


async def settle(house: Playhouse, *agents: str) -> None:
    """Wait until all is heard, and what is left to do when nobody speaks is done."""
    for agent in agents:
        await house.heard("", agent)
    await asyncio.sleep(0.5)


async def heard(house: Playhouse, prose: Prose, options: Options) -> dict[str, Any]:
    """Times to the first token, pair by pair."""
    ratios, heard_ms, nothing_ms, new = [], [], [], []
    for number in range(options.repeats):
        names = (f"hears-{number}", f"knows-{number}")
        for name in names:
            await house.enrol(name, f"You are {name}.")
        # Both have the same behind them; one has been asked about it, the other only told.
        await house.hear(HearRequest(agent=names[0], content=prose.passage(options.heard)))
        await ask(house, names[1], prose.passage(options.heard), 1)
        await settle(house, names[0])
        times = {}
        for name in names if number % 2 else names[::-1]:
            done = await ask(house, name, "What was that?", 1)
            times[name] = done.timings.ttft_ms
            new.append(done.usage.prompt_tokens - done.usage.cached_tokens)
            await asyncio.sleep(0.5)
        heard_ms.append(times[names[0]])
        nothing_ms.append(times[names[1]])
        ratios.append(heard_ms[-1] / nothing_ms[-1])
    return {
        "heard_ms": figure(heard_ms),
        "nothing_new_ms": figure(nothing_ms),
        "heard_to_nothing_new": figure(ratios),
        "new_tokens": sorted(set(new)),
    }


async def others(house: Playhouse, prose: Prose, options: Options) -> dict[str, Any]:
    """Gaps of one who decodes and the newcomer's wait, with hearing and without, pair by pair."""
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    read = []
    for number in range(options.repeats):
        for hears in (False, True) if number % 2 else (True, False):
            who = f"{number}-{'with' if hears else 'without'}"
            if hears:
                await house.enrol(f"told-{who}", "You listen.")
                await house.hear(HearRequest(agent=f"told-{who}", content=prose.passage(CONTEXT)))
                await settle(house, f"told-{who}")
            await ask(house, f"speaks-{who}", prose.passage(CONTEXT), 1)
            await asyncio.sleep(0.5)
            before = await house.counters()
            found[hears].append(await _visited(house, prose, who, options, hears=hears))
            if hears:
                read.append((await house.counters()).read_tokens - before.read_tokens)
                await settle(house, f"told-{who}")
    ratios = {
        f"{name}_to_without": figure(
            [a[name] / b[name] for a, b in zip(found[True], found[False], strict=True)]
        )
        for name in found[True][0]
    }
    seconds = {
        f"{name}_{word}": statistics.median(each[name] for each in found[hears])
        for name in found[True][0]
        for hears, word in ((True, "with"), (False, "without"))
    }
    worst = max(each["largest_s"] for each in found[True])
    return {
        **ratios,
        **seconds,
        "worst_gap_s": worst,
        "longest_background_chunk_s": MOST_BACKGROUND_S,
        "tokens_read_beside": read,
    }


async def _visited(
    house: Playhouse, prose: Prose, who: str, options: Options, *, hears: bool
) -> dict[str, float]:
    """One agent that decodes, and a newcomer once it has said ``CALM`` tokens: seconds."""
    hearsay = Hearsay(house, prose, f"told-{who}" if hears else None)
    telling = asyncio.ensure_future(hearsay.tell())
    arrivals: list[float] = []
    calm = asyncio.Event()

    def arrived() -> None:
        arrivals.append(time.perf_counter())
        if len(arrivals) == CALM:
            calm.set()

    turn = asyncio.ensure_future(
        ask(house, f"speaks-{who}", "Go on, at length.", 4 * CALM, arrived)
    )
    turn.add_done_callback(lambda _: calm.set())
    await calm.wait()
    gaps = [b - a for a, b in itertools.pairwise(arrivals)][1:]
    newcomer = await ask(house, f"comes-{who}", prose.passage(options.newcomer), 2)
    hearsay.over.set()
    await telling
    turn.cancel()
    await asyncio.wait([turn])
    return {
        "median_s": statistics.median(gaps),
        "p95_s": quantile(gaps, 0.95),
        "largest_s": max(gaps),
        "newcomer_s": newcomer.timings.ttft_ms / 1e3,
    }


PARTS = {"heard": heard, "others": others}


async def measure(home: Path, prose: Prose, options: Options) -> dict[str, Any]:
    """All parts."""
    settings = load_settings(overrides={"home": str(home), "log.level": "error"}).settings
    results: dict[str, Any] = {}
    async with open_house(settings) as house:
        await ask(house, "warm-up", prose.passage(CONTEXT), 16)
        for part in options.parts.split(","):
            results[part] = await PARTS[part](house, prose, options)
            print(part)
            for name, value in results[part].items():
                print(f"  {name}: {value}", flush=True)
    return results


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="what hearing saves and what it costs")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heard", type=int, default=1024, help="tokens that are heard")
    parser.add_argument("--newcomer", type=int, default=256, help="tokens of the newcomer's prompt")
    add_outputs(parser, "hearing")
    options = parser.parse_args(arguments, Options())
    prose = Prose(default_model())
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        results = asyncio.run(measure(home, prose, options))
    write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
