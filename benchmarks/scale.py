"""How a store of many agents starts, and what a lookup takes in it.

Stores of 1,000 to 100,000 segments, ten for each agent, who share a few system prompts: rows of an
index, as turns would have left them (contents are not read at a start). Measured: the time from
nothing until the store knows everybody (opening the index, reading it, the prefix tree), the memory
that takes, and the median time of finding the longest remembered prefix of a prompt, of finding
whose it is, and of one agent's chain.

    python -m benchmarks.scale [--segments 1000 10000 100000] [--json [FILE]] [--plot [FILE]]
"""

import argparse
import contextlib
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.figures import add_outputs, write_json
from benchmarks.memory import rss_bytes
from greenroom.runtime.index import Index
from greenroom.runtime.segments import Segment, chain_tokens, make_segment
from greenroom.runtime.start import remember

PER_AGENT = 10
SYSTEMS = 8
TOKENS = 60  # of a segment
LOOKUPS = 1000


class Row(msgspec.Struct, frozen=True):
    """One size: seconds, bytes and microseconds."""

    segments: int
    agents: int
    open_s: float
    load_s: float
    memory_mib: float
    index_mib: float
    match_us: float
    whose_us: float
    chain_us: float

    @property
    def start_s(self) -> float:
        """From nothing until everybody is known."""
        return self.open_s + self.load_s


def chains(num_segments: int, dice: random.Random) -> Iterator[list[Segment]]:
    """The segments of one agent after the other, the first of each a system prompt."""
    systems = [
        segment(None, [dice.randrange(49152) for _ in range(TOKENS)]) for _ in range(SYSTEMS)
    ]
    for _ in range(num_segments // PER_AGENT):
        grown = [dice.choice(systems)]
        while len(grown) <= PER_AGENT:
            grown.append(segment(grown[-1], [dice.randrange(49152) for _ in range(TOKENS)]))
        yield grown


def segment(parent: Segment | None, tokens: list[int]) -> Segment:
    return make_segment(
        parent=parent.id if parent else None,
        start=parent.end if parent else 0,
        tokens=tokens,
        text=" ".join(map(str, tokens)),
        kind="prompt",
        namespace="n",
        fingerprint="f",
        codec="k5cv5/1",
        messages=({"role": "user", "content": " ".join(map(str, tokens))},),
        num_bytes=500_000,
        created=time.time(),
    )


def fill(root: Path, num_segments: int) -> list[list[Segment]]:
    """Make the store; some agents' chains, for lookups."""
    sample: list[list[Segment]] = []
    agents: list[tuple[object, ...]] = []
    waiting: list[Segment] = []
    index = Index(root)
    for number, grown in enumerate(chains(num_segments, random.Random(1))):
        waiting += grown
        if len(waiting) > 5000:
            index.commit(waiting)
            waiting = []
        agents.append(("n", f"agent-{number}", grown[-1].id, None, "f", 1.0, 1.0, b"\x80"))
        if number % max(1, num_segments // PER_AGENT // 100) == 0:
            sample.append(grown)
    index.commit(waiting)
    index.close()
    with contextlib.closing(sqlite3.connect(root / "index.sqlite")) as db:
        # All in one transaction: a commit for each would be measured by the disk's patience.
        db.executemany("INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", agents)
        db.commit()
    return sample


def median_us(work: Callable[[list[Segment]], object], sample: list[list[Segment]]) -> float:
    """Of calling ``work`` with one chain after the other."""
    times: list[float] = []
    for number in range(LOOKUPS):
        grown = sample[number % len(sample)]
        started = time.perf_counter()
        work(grown)
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


def measure(root: Path, sample: list[list[Segment]]) -> Row:
    """One store's start and lookups."""
    before = rss_bytes_here()
    begun = time.perf_counter()
    index = Index(root)
    opened = time.perf_counter()
    contents, forest = remember(index, "f", lambda segment_id: None)
    ready = time.perf_counter()
    memory = rss_bytes_here() - before
    index.close()
    prompts = {c[-1].id: tuple(chain_tokens(forest.chain(c[-1].id)).tolist()) for c in sample}
    texts = {c[-1].id: "".join(each.text for each in c) for c in sample}
    return Row(
        segments=len(contents.segments),
        agents=len(contents.agents),
        open_s=opened - begun,
        load_s=ready - opened,
        memory_mib=memory / 2**20,
        index_mib=(root / "index.sqlite").stat().st_size / 2**20,
        match_us=median_us(lambda c: forest.match("n", (*prompts[c[-1].id], 1, 2, 3)), sample),
        whose_us=median_us(lambda c: forest.stand("n", texts[c[-1].id]), sample),
        chain_us=median_us(lambda c: forest.chain(c[-1].id), sample),
    )


def rss_bytes_here() -> int:
    """The resident set of this process."""
    return rss_bytes(os.getpid())


def show(rows: Sequence[Row]) -> None:
    print("| segments | agents | start s | open / load | RAM MiB | index MiB "
          "| prefix µs | whose µs | chain µs |")  # fmt: skip
    print("| --- " * 9 + "|")
    for r in rows:
        print(
            f"| {r.segments} | {r.agents} | {r.start_s:.2f} "
            f"| {r.open_s:.2f} / {r.load_s:.2f} | {r.memory_mib:.0f} "
            f"| {r.index_mib:.0f} | {r.match_us:.0f} | {r.whose_us:.0f} | {r.chain_us:.0f} |"
        )


def plot(rows: Sequence[Row], file: Path) -> None:
    """Starts and lookups over the number of segments."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (starts, lookups) = pyplot.subplots(1, 2, figsize=(10, 4))
    x = [r.segments for r in rows]
    starts.plot(x, [r.start_s for r in rows], marker="o")
    starts.set(xlabel="segments", ylabel="start, s", xscale="log", ylim=0)
    for name in ("match_us", "whose_us", "chain_us"):
        lookups.plot(x, [getattr(r, name) for r in rows], marker="o", label=name[:-3])
    lookups.set(xlabel="segments", ylabel="median lookup, µs", xscale="log", ylim=0)
    lookups.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    print(f"wrote {file}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="starts and lookups of large stores")
    parser.add_argument("--segments", type=int, nargs="+", default=[1000, 10_000, 100_000])
    add_outputs(parser, "scale", plot=True)
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for num_segments in options.segments:
            root = Path(folder, str(num_segments))
            sample = fill(root, num_segments)
            rows.append(measure(root, sample))
            print(f"{num_segments}: {rows[-1].start_s:.2f} s", file=sys.stderr, flush=True)
    show(rows)
    write_json(options.json, rows)
    if options.plot:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
