"""What agents share: a system prompt that two bring at once, and the trunk of branches.

The default model in this process. Two new agents arrive in one moment with one new system prompt of
``--system`` tokens; each one's time to the first token is set against that of an agent that comes
alone, and against two in namespaces of their own, who share nothing. Then an agent of ``--trunk``
tokens is forked, and four of its forks speak at once: what that adds on disk, hot in memory and in
decoded copies.

    python -m benchmarks.share [--system 1024] [--trunk 4096] [--repeats 3] [--json [FILE]]
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, add_outputs, figure, write_json
from benchmarks.prose import Prose, default_model
from benchmarks.serving import shared_models
from greenroom.actors.app import open_house
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnDone, TurnRequest

FORKS = 20
BRANCHES = 4
MIB = 2**20


class Arrival:
    """One turn of a new agent: when its first token came, and how much of its prompt was cached."""

    def __init__(self, ttft_s: float, done: TurnDone) -> None:
        self.ttft_s = ttft_s
        self.done = done


async def ask(house: Playhouse, agent: str, *told: ChatMessage, namespace: str = "") -> Arrival:
    """One greedy turn of a few tokens: a whole history, or what is said next."""
    request = TurnRequest(
        messages=told,
        mode="chat" if told[0].role == "system" else "say",
        agent=agent,
        namespace=namespace,
        max_tokens=8,
        sampling=Sampling(temperature=0),
    )
    begun, first = time.perf_counter(), 0.0
    async with opened(house, request) as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                first = first or time.perf_counter()
            elif isinstance(event, TurnDone):
                return Arrival(first - begun, event)
    sys.exit("a turn has not ended")


async def arriving(house: Playhouse, prose: Prose, tokens: int, number: int) -> dict[str, Any]:
    """One agent alone, two with one system prompt, two that must not share it."""

    def system() -> ChatMessage:
        return ChatMessage("system", prose.passage(tokens))

    def question(name: str) -> ChatMessage:
        return ChatMessage("user", f"What does this tell {name}?")

    alone = await ask(house, f"alone-{number}", system(), question("me"))
    one = system()
    both = await asyncio.gather(
        *(ask(house, f"{who}-{number}", one, question(who)) for who in ("first", "second"))
    )
    other = system()
    apart = await asyncio.gather(
        *(
            ask(house, f"{who}-{number}", other, question(who), namespace=who)
            for who in ("first", "second")
        )
    )
    print(
        f"alone {alone.ttft_s:.2f} s, together {[round(a.ttft_s, 2) for a in both]},"
        f" apart {[round(a.ttft_s, 2) for a in apart]}",
        file=sys.stderr,
        flush=True,
    )
    return {
        "alone_s": alone.ttft_s,
        "together": [a.ttft_s / alone.ttft_s for a in both],
        "apart": [a.ttft_s / alone.ttft_s for a in apart],
        "cached": [a.done.usage.cached_tokens for a in both],
        "prompt": [a.done.usage.prompt_tokens for a in both],
    }


def segment_bytes(store: Path) -> int:
    """Bytes of attention state on disk."""
    return sum(f.stat().st_size for f in store.rglob("*.safetensors"))


async def branching(house: Playhouse, prose: Prose, tokens: int) -> dict[str, Any]:
    """Forks of one agent, and four of them speaking at once."""
    store = house.settings.store_path
    trunk = ChatMessage("system", prose.passage(tokens))
    await ask(house, "trunk", trunk, ChatMessage("user", "Well?"))
    length = (await house.find("", "trunk")).num_tokens
    disk = await asyncio.to_thread(segment_bytes, store)
    times: list[float] = []
    for number in range(FORKS):
        begun = time.perf_counter()
        await house.fork("", "trunk", f"fork-{number}")
        times.append(1e3 * (time.perf_counter() - begun))
    copied = await asyncio.to_thread(segment_bytes, store) - disk
    before = await house.status()
    spoken = await asyncio.gather(
        *(
            ask(house, f"fork-{number}", ChatMessage("user", f"What of part {number}?"))
            for number in range(BRANCHES)
        )
    )
    after = await house.status()
    return {
        "trunk_tokens": length,
        "fork_ms": times,
        "copied_bytes": copied,
        "cached": [a.done.usage.cached_tokens for a in spoken],
        "prompt": [a.done.usage.prompt_tokens for a in spoken],
        "trunk_disk_mib": disk / MIB,
        "disk_mib": (await asyncio.to_thread(segment_bytes, store) - disk) / MIB,
        "hot_mib": (after.hot.num_bytes - before.hot.num_bytes) / MIB,
        "trunk_resident_mib": before.stage.memory.resident / MIB,
        "resident_mib": after.stage.memory.resident / MIB,
    }


async def measure(settings: Any, prose: Prose, arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it, in one house."""
    async with open_house(settings) as house:
        await ask(house, "warm", ChatMessage("system", "Be brief."), ChatMessage("user", "Yes?"))
        arrivals = [
            await arriving(house, prose, arguments.system, number)
            for number in range(arguments.repeats)
        ]
        return {"arrivals": arrivals, "branches": await branching(house, prose, arguments.trunk)}


def worst(arrivals: Sequence[dict[str, Any]], which: str) -> Figure:
    """The slower one of each two, as a multiple of one alone."""
    return figure([max(each[which]) for each in arrivals])


def main() -> int:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description="What agents share.")
    parser.add_argument("--system", type=int, default=1024)
    parser.add_argument("--trunk", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3, help="0: only the branches")
    add_outputs(parser, "share")
    arguments = parser.parse_args()
    prose = Prose(default_model())
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        overrides = {"home": str(home), "log.level": "warning"}
        settings = load_settings(overrides=overrides).settings
        result = asyncio.run(measure(settings, prose, arguments))
    branches = result["branches"]
    if arrivals := result["arrivals"]:
        print(f"alone: {figure([each['alone_s'] for each in arrivals])} s to the first token")
        print(f"two at once, the slower one: {worst(arrivals, 'together')} x")
        print(f"two that share nothing: {worst(arrivals, 'apart')} x")
        print(f"cached of the prompts: {arrivals[-1]['cached']} of {arrivals[-1]['prompt']}")
    print(
        f"fork of {branches['trunk_tokens']} tokens: {figure(branches['fork_ms'])} ms,"
        f" {branches['copied_bytes']} bytes of attention state copied"
    )
    print(
        f"{BRANCHES} branches at once: cached {branches['cached']} of {branches['prompt']};"
        f" the trunk takes {branches['trunk_disk_mib']:.1f} MiB on disk and"
        f" {branches['trunk_resident_mib']:.0f} MiB decoded; the branches add"
        f" {branches['disk_mib']:.2f} MiB on disk, {branches['hot_mib']:.2f} MiB hot;"
        f" decoded copies then {branches['resident_mib']:.0f} MiB"
    )
    write_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
