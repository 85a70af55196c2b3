"""Time to the first token: cold, hot, sent again and after SIGKILL, against the bare engine.

Per prompt length and repeat, in this order, so that every ratio is within one run: mlx-lm alone on
the cold prompt (at its best chunk size), the server on it, a follow-up of some 16 new tokens at
once ("hot"), one after a short think time, in which the stage has made its resident copy
("rested"), the same request once more ("re-sent"), SIGKILL and restart, a follow-up ("restarted"),
one more without a resident copy ("decoded"), and that request once more. Each is held against its
bound, of another process: one bare forward of its new tokens over the decoded context, and for
those without a resident copy decoding the segments, and reading them after the restart. The
client's clock, over HTTP, streamed. What is sent again has no new tokens; it is held against a
forward of one, a decode step. Medians, with 95 % intervals.

    python -m benchmarks.ttft [--lengths 512,1024,2048,4096] [--repeats 3] [--chunk N]
                             [--json [FILE]] [--plot [FILE]]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, add_outputs, figure, write_json
from benchmarks.prose import Messages, Prose, default_model
from benchmarks.serving import Answer, BareEngine, Server, shared_models

CHUNKS = (128, 256, 512)
FLOOR_TIMES = 5
THINK_S = 0.5
NO_COPIES = ("--set", "memory.resident_budget_mb=0")
# What bounds each case from below, beside the forward of its new tokens.
BOUNDS: dict[str, tuple[str, ...]] = {
    "hot": ("forward",),
    "rested": ("forward",),
    "re-sent": ("forward",),
    "restarted": ("forward", "decode", "read"),
    "decoded": ("forward", "decode"),
    "decoded, re-sent": ("forward", "decode"),
}


class Turn(msgspec.Struct, frozen=True):
    """One measured turn and its bound: seconds, tokens."""

    ttft_s: float
    bound_s: float
    cached_tokens: int
    new_tokens: int
    parts_s: dict[str, float]


class Repeat(msgspec.Struct, frozen=True):
    """One repeat at one length; bytes are those the store grew by."""

    turns: dict[str, Turn]
    cold_bytes: int
    follow_up_bytes: int


class Case(msgspec.Struct, frozen=True):
    """One case: seconds, its share of its bound, and how much sooner than raw cold it answers."""

    ttft_s: Figure
    bound_s: Figure
    ratio: Figure
    sooner: Figure


class Length(msgspec.Struct, frozen=True):
    """Everything at one prompt length; mlx-lm's ``chunk`` is the fastest of ``raw_by_chunk_s``."""

    chunk: int
    raw_by_chunk_s: dict[int, float]
    cases: dict[str, Case]
    repeats: list[Repeat]


class Bench:
    """The processes, and the prose that prompts are cut from."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home = home
        self.prose = Prose(model)
        self.raw = BareEngine(model, "raw")
        self.floor = BareEngine(model, "floor")
        self.server = Server(home)

    def close(self) -> None:
        self.server.kill()
        self.raw.close()
        self.floor.close()


class Conversation:
    """One agent's chat, and what each of its turns is held against."""

    def __init__(self, bench: Bench, name: str, messages: Messages) -> None:
        self._bench = bench
        self._name = name
        self._messages = messages
        self._asked: list[tuple[str, Answer, list[int]]] = []

    def ask(self, case: str, question: str | None) -> Answer:
        """Ask something, or the same once more."""
        if question is not None and self._asked:
            self._messages += [
                {"role": "assistant", "content": self._asked[-1][1].text},
                {"role": "user", "content": question},
            ]
        answer = self._bench.server.ask(self._name, self._messages)
        self._asked.append((case, answer, self._bench.prose.tokens(self._messages)))
        return answer

    def turns(self, raw_s: float) -> dict[str, Turn]:
        """Every turn beside its bound; a cold prompt's is mlx-lm on it."""
        found = {}
        for case, answer, tokens in self._asked:
            # What is sent again has nothing new; its bound is a decode step all the same.
            new = max(1, answer.prompt_tokens - answer.cached_tokens)
            parts = {"raw": raw_s}
            if case in BOUNDS:
                parts = self._bench.floor.ask(
                    op="floor",
                    store=str(self._bench.home / "store"),
                    head=answer.head,
                    length=answer.prompt_tokens - new,
                    tokens=tokens[-new:],
                    times=FLOOR_TIMES,
                )
            bound = sum(parts[name] for name in BOUNDS.get(case, ("raw",)))
            found[case] = Turn(answer.ttft_s, bound, answer.cached_tokens, new, parts)
        return found


def measure(bench: Bench, length: int, repeat: int, chunk: int) -> Repeat:
    """One repeat at one length."""
    messages = bench.prose.question(length)
    raw_s = bench.raw.ask(op="raw", tokens=bench.prose.tokens(messages), chunk=chunk)
    talk = Conversation(bench, f"agent-{length}-{repeat}", messages)
    bench.server.start()
    before = bench.server.bytes_written()
    talk.ask("cold", None)
    after = bench.server.bytes_written()
    talk.ask("hot", "Say more about this, in one word.")
    written = bench.server.bytes_written() - after
    time.sleep(THINK_S)
    talk.ask("rested", "And now say it in another word.")
    time.sleep(THINK_S)
    talk.ask("re-sent", None)
    bench.server.kill()
    bench.server.start(*NO_COPIES)
    talk.ask("restarted", "Is there a third word for it?")
    talk.ask("decoded", "Say that word in another language.")
    talk.ask("decoded, re-sent", None)
    bench.server.kill()
    return Repeat(talk.turns(raw_s), after - before, written)


def best_chunk(bench: Bench, length: int) -> tuple[int, dict[int, float]]:
    """mlx-lm's fastest chunk size at this length, and what each took."""
    tokens = bench.prose.tokens(bench.prose.question(length))
    candidates = [c for c in CHUNKS if c < 2 * length]
    taken = {c: bench.raw.ask(op="raw", tokens=tokens, chunk=c) for c in candidates}
    return min(taken, key=lambda c: taken[c]), taken


def cases(repeats: Sequence[Repeat]) -> dict[str, Case]:
    """Sum up; ratios are of each repeat's own figures."""
    found = {}
    for name in repeats[0].turns:
        turns = [each.turns[name] for each in repeats]
        raws = [each.turns["cold"].bound_s for each in repeats]
        found[name] = Case(
            ttft_s=figure([t.ttft_s for t in turns]),
            bound_s=figure([t.bound_s for t in turns]),
            ratio=figure([t.ttft_s / t.bound_s for t in turns]),
            sooner=figure([raw / t.ttft_s for raw, t in zip(raws, turns, strict=True)]),
        )
    return found


def show(results: dict[int, Length]) -> None:
    """Print the table."""
    table = Table("prompt", "case", "TTFT", "bound", "ratio", "raw cold / it", box=None)
    for length, result in results.items():
        for name, case in result.cases.items():
            first = f"{length} (chunk {result.chunk})" if name == "cold" else ""
            seconds = [f"{x.median:.3f} s" for x in (case.ttft_s, case.bound_s)]
            table.add_row(first, name, *seconds, str(case.ratio), str(case.sooner))
        last = result.repeats[-1]
        written = f"{last.cold_bytes / 1e6:.1f} + {last.follow_up_bytes / 1e6:.2f} MB written"
        table.add_row("", written, end_section=True)
    Console(width=150).print(table)


def plot(results: dict[int, Length], file: Path) -> None:
    """Draw the medians over the prompt's length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure_, axes = pyplot.subplots(figsize=(7, 4.5))
    lengths = list(results)
    cold = [results[n].cases["cold"].bound_s.median for n in lengths]
    axes.plot(lengths, cold, marker="o", label="mlx-lm, cold")
    for name, label in (
        ("cold", "greenroom, cold"),
        ("restarted", "greenroom, after SIGKILL and restart"),
        ("rested", "greenroom, hot"),
    ):
        medians = [results[n].cases[name].ttft_s.median for n in lengths]
        axes.plot(lengths, medians, marker="o", label=label)
    floor = [results[n].cases["rested"].bound_s.median for n in lengths]
    axes.plot(lengths, floor, marker="o", label="floor: one bare forward")
    axes.set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel="seconds to first token")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure_.tight_layout()
    figure_.savefig(file, dpi=120)
    print(f"wrote {file}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="time to the first token")
    parser.add_argument("--lengths", default="512,1024,2048,4096")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, help="mlx-lm's chunk size, if not the best of a few")
    add_outputs(parser, "ttft", plot=True)
    options = parser.parse_args(arguments)
    model = default_model()
    results: dict[int, Length] = {}
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        bench = Bench(home, model)
        try:
            for length in map(int, options.lengths.split(",")):
                chunk, chunks = options.chunk, dict[int, float]()
                if chunk is None:
                    chunk, chunks = best_chunk(bench, length)
                repeats = []
                for repeat in range(options.repeats):
                    repeats.append(measure(bench, length, repeat, chunk))
                    print(f"{length}: {repeats[-1].turns}", file=sys.stderr, flush=True)
                results[length] = Length(chunk, chunks, cases(repeats), repeats)
        finally:
            bench.close()
    show(results)
    write_json(options.json, results)
    if options.plot:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
