"""Bytes that a turn writes: the new tokens, encoded, and little else, however long the context is.

One agent takes 100 turns, each of at least 64 new tokens (prompt and answer). Counted for each: the
encoded size of its new tokens, the bytes of its files, and all bytes that the process hands to the
system meanwhile, the index's log included (Linux only; elsewhere what files have grown by).

    python -m benchmarks.writes [--turns 100] [--json [FILE]] [--plot [FILE]]
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from benchmarks.figures import add_outputs, quantile, write_json
from benchmarks.prose import Prose, default_model
from benchmarks.serving import shared_models
from greenroom.actors.app import open_house
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.index import Index
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest
from greenroom.runtime.segments import Segment, chain

SAID, ANSWERED = 58, 8


class Turn(msgspec.Struct):
    """Tokens in the context at its end and new ones, and bytes."""

    context: int
    new_tokens: int
    encoded: int
    files: int
    everything: int

    @property
    def overhead(self) -> float:
        """All that was written, as a multiple of the encoded tokens."""
        return self.everything / self.encoded


def handed_to_system(store: Path) -> int:
    """Bytes written by this process so far."""
    counters = Path("/proc/self/io")
    if counters.exists():
        fields = dict(line.split(": ") for line in counters.read_text().splitlines())
        return int(fields["wchar"])
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


async def speak(house: Playhouse, prose: Prose, turns: int, store: Path) -> list[Turn]:
    taken: list[Turn] = []
    for number in range(turns):
        request = TurnRequest(
            messages=(ChatMessage("user", prose.passage(SAID)),),
            mode="say",
            agent="alice",
            max_tokens=ANSWERED,
            sampling=Sampling(temperature=0),
        )
        before = handed_to_system(store)
        async with opened(house, request) as turn:
            done: TurnDone = await turn.done()
        written = handed_to_system(store) - before
        usage = done.usage
        context = usage.prompt_tokens + usage.completion_tokens
        taken.append(Turn(context, context - usage.cached_tokens, 0, 0, written))
        print(f"turn {number + 1}: {context} tokens", file=sys.stderr, flush=True)
    return taken


def account(store: Path, taken: list[Turn]) -> None:
    """What each turn's segments take, encoded and as files."""
    index = Index(store)
    contents = index.load_all()
    index.close()
    (alice,) = (agent for agent in contents.agents if agent.name == "alice")
    pieces = chain(alice.head, {each.id: each for each in contents.segments})
    ends = [turn.context for turn in taken]
    for piece in pieces:
        segment: Segment = piece.segment
        turn = taken[next(n for n, end in enumerate(ends) if segment.end <= end)]
        turn.encoded += segment.num_bytes
        name = f"{segment.id}.safetensors"
        turn.files += (store / "segments" / segment.id[:2] / name).stat().st_size


def plot(taken: Sequence[Turn], file: Path) -> None:
    """Kilobytes per turn over the context's length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    x = [turn.context for turn in taken]
    axes.plot(x, [t.everything / 1e3 for t in taken], label="all that is written")
    axes.plot(x, [t.files / 1e3 for t in taken], label="segment files")
    axes.plot(x, [t.encoded / 1e3 for t in taken], label="new tokens, encoded")
    axes.plot(x, [1.1 * t.encoded / 1e3 for t in taken], ":", color="gray", label="1.1 times that")
    axes.set(xlabel="tokens in the context", ylabel="kB per turn", ylim=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    print(f"wrote {file}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="bytes that turns write")
    parser.add_argument("--turns", type=int, default=100)
    add_outputs(parser, "writes", plot=True)
    options = parser.parse_args(arguments)
    prose = Prose(default_model())
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        settings = load_settings(overrides={"home": str(home)}).settings

        async def run() -> list[Turn]:
            async with open_house(settings) as house:
                return await speak(house, prose, options.turns, settings.store_path)

        taken = uvloop.run(run())
        account(settings.store_path, taken)
    shares = [turn.overhead for turn in taken]
    print(
        f"{len(taken)} turns of {min(t.new_tokens for t in taken)} to "
        f"{max(t.new_tokens for t in taken)} new tokens, up to {taken[-1].context} in the context"
    )
    print(
        f"written: {quantile(shares, 0.5):.3f} times the encoded tokens in the median, "
        f"{quantile(shares, 0.95):.3f} at p95, {max(shares):.3f} at most; "
        f"files alone {max(t.files / t.encoded for t in taken):.3f} at most"
    )
    first, last = (quantile(part, 0.5) for part in (shares[:10], shares[-10:]))
    print(f"the first ten turns {first:.3f}, the last ten {last:.3f}")
    write_json(options.json, taken)
    if options.plot:
        plot(taken, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
