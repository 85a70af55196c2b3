"""What memory and hearing save in scenes.

five phases   examples/dilemma.toml performed, and again by agents who read everything anew each
              turn and say the same: time to the first token phase by phase, and the wall time
round robin   three members; the next speaker's time to the first token when it has heard the
              others (they rest until it has), and without a rest, against a turn with nothing new
routing       ten experts read a chapter each, are asked again, and after a restart

Each part is played anew, on an empty home, for every repeat.

    python -m benchmarks.scenes [--parts phases,round,routing] [--repeats 3] [--json [FILE]]
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

import greenroom
from benchmarks.figures import Figure, add_outputs, figure, write_json
from benchmarks.forgetful import Forgetful, Performed, Remembering, performed
from benchmarks.machine import ROOT
from benchmarks.serving import shared_models
from greenroom.actors.app import open_house
from greenroom.actors.reply import Reply
from greenroom.runtime.layers import load_settings
from greenroom.runtime.scenario import Member, Scenario
from greenroom.runtime.scene_file import checked, read_scenario

EXPERTS = (
    "with", "raise", "class", "objects", "async", "identifiers", "naming", "function", "binary",
    "calls",
)  # fmt: skip
"""Chapters of 600 to 1,500 tokens, each read as a whole."""
WARM_UP = checked(Scenario(name="warm-up", members=(Member(name="Ann"),), max_turns=1))


async def phases(home: Path) -> dict[str, float]:
    """Milliseconds to the first token by phase, with memory and without, and wall times."""
    scenario = read_scenario((ROOT / "examples" / "dilemma.toml").read_text())
    runs: list[Performed] = []
    for durability in ("turn", "async"):  # what keeps nothing waits for no disk
        settings = {"home": str(home), "log.level": "error", "memory.durability": durability}
        loaded = await asyncio.to_thread(load_settings, overrides=settings)
        async with open_house(loaded.settings) as house:
            await performed(_folder(home, f"warm-{durability}"), WARM_UP, Remembering(house))
            agents = Forgetful(house, runs[0].turns) if runs else Remembering(house)
            runs.append(await performed(_folder(home, durability), scenario, agents))
    kept, nothing = runs
    told = {
        "turns": float(len(kept.turns)),
        "answered_tokens": float(_answered(kept)),
        "prompt_tokens": float(sum(t.usage.prompt_tokens for t in kept.turns.values())),
    }
    for phase in range(len(scenario.phases)):
        memory_ms, nothing_ms = (_ttft_ms(run, phase) for run in runs)
        told[f"phase_{phase + 1}_with_memory_ms"] = memory_ms
        told[f"phase_{phase + 1}_without_ms"] = nothing_ms
        told[f"phase_{phase + 1}_times_shorter"] = nothing_ms / memory_ms
    return told | {
        "wall_with_memory_s": kept.wall_s,
        "wall_without_s": nothing.wall_s,
        "whole_run_shorter_percent": 100 * (1 - kept.wall_s / nothing.wall_s),
    }


def _ttft_ms(run: Performed, phase: int) -> float:
    """The mean of a phase's turns, ballots too."""
    return statistics.fmean(
        done.timings.ttft_ms for cue, done in run.turns.items() if run.phases[cue] == phase
    )


def _answered(run: Performed) -> int:
    return sum(done.usage.completion_tokens for done in run.turns.values())


def _folder(home: Path, name: str) -> Path:
    folder = home / name
    folder.mkdir()
    return folder


async def round_robin(home: Path) -> dict[str, float]:
    """Median milliseconds to the first token: nothing new, heard, and not yet heard."""
    names = ("Ann", "Bob", "Cid")
    async with greenroom.open(home=home, log__level="error") as room:
        members = [await room.spawn(n, system=f"You are {n}. Be brief. " * 20) for n in names]
        scene = await room.scene("round", members, max_tokens=24, temperature=0.0)
        await scene.say("Talk about the weather.")
        turns = [(x.timings.ttft_ms, x.usage) for x in await scene.run(9) if x.timings and x.usage]
        hurried = [ttft_ms for ttft_ms, _ in turns]
        new = [used.prompt_tokens - used.cached_tokens for _, used in turns[3:]]
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
        "without_a_rest_new_tokens": statistics.median(new),
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
                    chapter = " ".join(topics[name].split())
                    expert = await room.spawn(f"expert.{name}", system=chapter)
                    replies.append(await expert.say("What is it?", max_tokens=4, temperature=0))
                rounds.append(replies)
    primed, *later = ([r.timings for r in replies] for replies in rounds)
    priming = statistics.median(t.ttft_ms for t in primed)
    told: dict[str, float] = {
        "prompt_tokens": statistics.median(r.usage.prompt_tokens for r in rounds[0]),
        "priming_ms": priming,
        "new_tokens": statistics.median(
            r.usage.prompt_tokens - r.usage.cached_tokens for r in (*rounds[1], *rounds[2])
        ),
    }
    for name, timings in zip(("warm", "restarted"), later, strict=True):
        ttft_ms = statistics.median(t.ttft_ms for t in timings)
        told[f"{name}_ms"] = ttft_ms
        # What new tokens cost in any system, and what is this one's own.
        told[f"{name}_new_tokens_ms"] = statistics.median(t.prefill_ms for t in timings)
        told[f"{name}_restore_ms"] = statistics.median(t.restore_ms for t in timings)
        told[f"{name}_times_shorter"] = priming / ttft_ms
    return told


PARTS = {"phases": phases, "round": round_robin, "routing": routing}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="what memory and hearing save in scenes")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    add_outputs(parser, "scenes")
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, Figure]] = {}
    for part in options.parts.split(","):
        played = []
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
                played.append(asyncio.run(PARTS[part](home)))
        results[part] = {name: figure([each[name] for each in played]) for name in played[0]}
        print(part)
        for name, found in results[part].items():
            print(f"  {name}: {found}", flush=True)
    write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
