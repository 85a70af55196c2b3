"""What memory and hearing save in scenes.

five phases   examples/dilemma.toml performed, against the same prompts read from nothing by agents
              that share nothing: time to the first token phase by phase, and of the whole
round robin   three members; the next speaker's time to the first token when it has heard the
              others (they rest until it has), and without a rest, against a turn with nothing new
routing       ten experts prime a chapter each, are asked again, and after a restart

    python -m benchmarks.scenes [--parts phases,round,routing] [--json [FILE]]
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import greenroom
from benchmarks.figures import add_outputs, write_json
from benchmarks.machine import ROOT
from benchmarks.serving import shared_models
from greenroom.actors.reply import Reply
from greenroom.runtime.scenario import read_scenario

EXPERTS = ("with", "lambda", "assert", "del", "global", "for", "import", "class", "yield", "raise")


async def phases(home: Path) -> dict[str, Any]:
    """Milliseconds to the first token by phase, with memory and without, and seconds in all."""
    scenario = read_scenario((ROOT / "examples" / "dilemma.toml").read_text())
    warm: list[list[float]] = [[] for _ in scenario.phases]
    cold: list[list[float]] = [[] for _ in scenario.phases]
    walls = [0.0, 0.0]
    async with greenroom.open(home=home, log__level="error") as room:
        scene = await room.scene(scenario)
        said = [line for line in await scene.run() if line.timings is not None]
        for n, line in enumerate(said):
            assert line.timings is not None
            assert line.speaker is not None
            heard = await scene.transcript(heard_by=line.speaker)
            known = [x for x in heard if x.number < line.number]
            before = [f"{x.speaker or 'Narrator'}: {x.text}" for x in known]
            system = scenario.member(line.speaker).system
            fresh = await room.spawn(f"cold.{n}", system=system, share="none")
            reply = await fresh.say("\n\n".join(before), max_tokens=32, temperature=0)
            for times, timings in ((warm, line.timings), (cold, reply.timings)):
                times[line.phase].append(timings.ttft_ms)
            walls[0] += line.timings.ttft_ms + line.timings.decode_ms + line.timings.commit_ms
            walls[1] += line.timings.decode_ms + line.timings.commit_ms + reply.timings.ttft_ms
    pairs = [
        (statistics.fmean(a), statistics.fmean(b)) for a, b in zip(warm, cold, strict=True) if a
    ]
    return {
        "with_memory_ms": [a for a, _ in pairs],
        "without_ms": [b for _, b in pairs],
        "times_shorter": [b / a for a, b in pairs],
        "whole_run_shorter_percent": 100 * (1 - walls[0] / walls[1]),
    }


async def round_robin(home: Path) -> dict[str, float]:
    """Median milliseconds to the first token: nothing new, heard, and not yet heard."""
    names = ("Ann", "Bob", "Cid")
    async with greenroom.open(home=home, log__level="error") as room:
        members = [await room.spawn(n, system=f"You are {n}. Be brief. " * 20) for n in names]
        scene = await room.scene("round", members, max_tokens=24, temperature=0.0)
        await scene.say("Talk about the weather.")
        hurried = [x.timings.ttft_ms for x in await scene.run(9) if x.timings]
        rested: list[float] = []
        nothing: list[float] = []
        for _ in range(6):
            for member in members:
                await member.heard()
            rested += [x.timings.ttft_ms for x in await scene.step() if x.timings]
            for member in members:
                await member.heard()
            reply = await members[0].say("?", max_tokens=1, temperature=0)
            nothing.append(reply.timings.ttft_ms)
    middle = [statistics.median(x) for x in (nothing, rested, hurried[3:])]
    return {
        "nothing_new_ms": middle[0],
        "heard_ms": middle[1],
        "without_a_rest_ms": middle[2],
        "heard_to_nothing_new": middle[1] / middle[0],
        "without_a_rest_to_nothing_new": middle[2] / middle[0],
    }


async def routing(home: Path) -> dict[str, float]:
    """Median milliseconds to the first token of priming and of later questions."""
    rounds: list[list[Reply]] = []
    for again in (False, True):
        async with greenroom.open(home=home, log__level="error") as room:
            for _ in range(1 if again else 2):
                replies: list[Reply] = []
                for name in EXPERTS:
                    chapter = " ".join(topics[name].split())[:3000]
                    expert = await room.spawn(f"expert.{name}", system=chapter)
                    replies.append(await expert.say("What is it?", max_tokens=4, temperature=0))
                rounds.append(replies)
    priming, warm, restarted = (statistics.median(r.timings.ttft_ms for r in x) for x in rounds)
    new = statistics.median(
        r.usage.prompt_tokens - r.usage.cached_tokens for r in (*rounds[1], *rounds[2])
    )
    return {
        "prompt_tokens": statistics.median(r.usage.prompt_tokens for r in rounds[0]),
        "new_tokens": new,
        "priming_ms": priming,
        "warm_ms": warm,
        "restarted_ms": restarted,
        "restarted_restore_ms": statistics.median(r.timings.restore_ms for r in rounds[2]),
        "warm_times_shorter": priming / warm,
        "restarted_times_shorter": priming / restarted,
    }


PARTS = {"phases": phases, "round": round_robin, "routing": routing}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="what memory and hearing save in scenes")
    parser.add_argument("--parts", default=",".join(PARTS))
    add_outputs(parser, "scenes")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {}
    for part in options.parts.split(","):
        with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
            results[part] = asyncio.run(PARTS[part](home))
        print(part)
        for name, value in results[part].items():
            values = value if isinstance(value, list) else [value]
            print(f"  {name}: {', '.join(f'{v:.3g}' for v in values)}", flush=True)
    write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
