"""A cold prompt arrives while another agent decodes: who waits for whom, over the gap setting.

Per repeat and setting of ``stage.max_decode_gap_ms`` (0: automatic): one agent decodes, undisturbed
at first; then a newcomer with a cold prompt comes, over HTTP. Reported are the decoding agent's
largest gap between two tokens until the newcomer's first token, as a multiple of its undisturbed
median gap in the same run, and the newcomer's time to its first token as a multiple of that of a
cold prompt alone in the same repeat. The same of mlx-lm's ``BatchGenerator`` in a process of its
own, over its chunk size, against its fastest chunk size alone. Draws both frontiers.

    python -m benchmarks.stall [--gaps 0 100 400 1600] [--chunks 32 64 128 512] [--repeats 3]
                              [--newcomer 1024] [--json [FILE]] [--plot [FILE]]
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.decode import lasting
from benchmarks.figures import Figure, add_outputs, figure, write_json
from benchmarks.prose import Messages, Prose, default_model
from benchmarks.serving import BareEngine, Server, ask, shared_models

ALONE_CHUNKS = (128, 256)  # mlx-lm's fastest for a cold prompt of 1024 tokens on a CPU


class Visit(msgspec.Struct, frozen=True):
    """One newcomer: seconds."""

    step_s: float
    largest_gap_s: float
    mean_gap_s: float
    ttft_s: float
    alone_s: float


class Point(msgspec.Struct, frozen=True):
    """One setting: ``gap`` in undisturbed gaps, ``ttft`` in cold prompts alone."""

    engine: str
    setting: int
    gap: Figure
    ttft: Figure
    visits: list[Visit]


class Options(argparse.Namespace):
    """What can be said on the command line."""

    gaps: list[int]
    chunks: list[int]
    repeats: int
    context: int
    newcomer: int
    before: int
    lasting: int
    json: Path | None
    plot: Path | None


def visit(arrivals: Sequence[float], sent: float, first: float, alone_s: float) -> Visit:
    """What the decoding agent's arrivals say about a newcomer at ``sent``, answered at ``first``.

    The gap that the newcomer's last chunk makes ends with the next token after ``first``.
    """
    gaps = list(itertools.pairwise(arrivals))
    calm = [b - a for a, b in gaps[1:] if b <= sent]
    disturbed = [b - a for a, b in gaps if b > sent and a <= first]
    return Visit(
        step_s=statistics.median(calm),
        largest_gap_s=max(disturbed),
        mean_gap_s=statistics.fmean(disturbed),
        ttft_s=first - sent,
        alone_s=alone_s,
    )


def served(
    server: Server, names: tuple[str, str], prompts: tuple[Messages, Messages], options: Options
) -> tuple[list[float], float, float]:
    """A newcomer over HTTP: arrivals at the other, when it was sent and first answered."""
    decoding, answered = Event(), Event()
    after = 0

    def watch(pieces: int) -> bool:
        nonlocal after
        if pieces == options.before:
            decoding.set()
        after += answered.is_set()
        return after < 2

    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(ask, server.url, names[0], prompts[0], options.lasting, watch)
        if not decoding.wait(120):
            sys.exit("the first agent does not decode")
        other = ask(server.url, names[1], prompts[1], 2)
        answered.set()
        one = turn.result()
    if one.arrivals[-1] < other.arrivals[0]:
        sys.exit("the first agent's answer ended before the newcomer's began: raise --lasting")
    return list(one.arrivals), other.sent, other.arrivals[0]


def repeat(
    server: Server, bare: BareEngine, prose: Prose, number: int, host: Messages, options: Options
) -> dict[tuple[str, int], Visit]:
    """One visit at every setting."""
    found: dict[tuple[str, int], Visit] = {}
    server.start()
    alone_s = server.ask(f"alone-{number}", prose.question(options.newcomer), 2).ttft_s
    server.kill()
    for gap_ms in options.gaps:
        server.start("--set", f"stage.max_decode_gap_ms={gap_ms}")
        server.ask("warm-up", host, 8)
        names = (f"host-{number}-{gap_ms}", f"newcomer-{number}-{gap_ms}")
        seen = served(server, names, (host, prose.question(options.newcomer)), options)
        server.kill()
        found["greenroom", gap_ms] = visit(*seen, alone_s)
        print(gap_ms, found["greenroom", gap_ms], file=sys.stderr, flush=True)
    if options.chunks:
        tokens = prose.tokens(prose.question(options.newcomer))
        bare_s = min(bare.ask(op="raw", tokens=tokens, chunk=c) for c in ALONE_CHUNKS)
    for chunk in options.chunks:
        answer = bare.ask(
            op="newcomer",
            context=prose.tokens(host),
            newcomer=prose.tokens(prose.question(options.newcomer)),
            step=chunk,
            before=options.before,
        )
        found["mlx-lm", chunk] = visit(answer["arrivals"], answer["sent"], answer["first"], bare_s)
        print(chunk, found["mlx-lm", chunk], file=sys.stderr, flush=True)
    return found


def points(repeats: Sequence[dict[tuple[str, int], Visit]]) -> list[Point]:
    """Sum up."""
    result = []
    for engine, setting in repeats[0]:
        visits = [each[engine, setting] for each in repeats]
        result.append(
            Point(
                engine=engine,
                setting=setting,
                gap=figure([v.largest_gap_s / v.step_s for v in visits]),
                ttft=figure([v.ttft_s / v.alone_s for v in visits]),
                visits=visits,
            )
        )
    return result


def show(found: Sequence[Point]) -> None:
    """Print the table."""
    table = Table("engine", "gap ms / chunk", "largest gap / step", "TTFT / alone", box=None)
    for name in ("step", "mean gap", "largest gap", "TTFT", "alone"):
        table.add_column(name)
    for p in found:
        seconds = ("step_s", "mean_gap_s", "largest_gap_s", "ttft_s", "alone_s")
        medians = [statistics.median(getattr(v, name) for v in p.visits) for name in seconds]
        cells = [f"{median:.2f} s" for median in medians[2:]]
        short = [f"{1e3 * median:.0f} ms" for median in medians[:2]]
        table.add_row(p.engine, str(p.setting), str(p.gap), str(p.ttft), *short, *cells)
    Console(width=150).print(table)


def plot(found: Sequence[Point], file: Path) -> None:
    """Draw the frontiers: to the left and below is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure_, axes = pyplot.subplots(figsize=(7, 4.5))
    for engine, unit in (("greenroom", "ms"), ("mlx-lm", "-token chunks")):
        mine = sorted((p for p in found if p.engine == engine), key=lambda p: p.gap.median)
        if not mine:
            continue
        x, y = [p.gap.median for p in mine], [p.ttft.median for p in mine]
        (line,) = axes.plot(x, y, marker="o", label=engine)
        for p in mine:
            label = "default" if p.engine == "greenroom" and not p.setting else f"{p.setting}{unit}"
            at = (p.gap.median, p.ttft.median)
            axes.annotate(label, at, xytext=(5, 5), textcoords="offset points", fontsize=8)
            axes.plot([p.gap.low, p.gap.high], [at[1]] * 2, color=line.get_color(), alpha=0.3)
            axes.plot([at[0]] * 2, [p.ttft.low, p.ttft.high], color=line.get_color(), alpha=0.3)
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    axes.axvspan(0, 10, ymax=1.0, color="green", alpha=0.05)
    axes.axhspan(0, 1.5, color="green", alpha=0.05)
    axes.set(
        xscale="log",
        xlim=(2, right),
        ylim=(0.9, top),
        xlabel="largest gap, in undisturbed steps",
        ylabel="newcomer's TTFT, in cold TTFTs alone",
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure_.tight_layout()
    figure_.savefig(file, dpi=120)
    print(f"wrote {file}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="gaps and waits when a newcomer arrives")
    parser.add_argument("--gaps", type=int, nargs="*", default=[0, 100, 400, 1600])
    parser.add_argument("--chunks", type=int, nargs="*", default=[32, 64, 128, 512])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--context", type=int, default=512, help="tokens of the one who decodes")
    parser.add_argument("--newcomer", type=int, default=1024, help="tokens of the cold prompt")
    parser.add_argument("--before", type=int, default=16, help="undisturbed tokens")
    parser.add_argument("--lasting", type=int, default=160, help="tokens to decode at least")
    add_outputs(parser, "stall", plot=True)
    options = parser.parse_args(arguments, Options())
    model = default_model()
    prose = Prose(model)
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        server = Server(home)
        bare = BareEngine(model, "raw")
        try:
            server.start()
            host = lasting(server, prose, options.context, options.lasting)
            server.kill()
            repeats = [
                repeat(server, bare, prose, number, host, options)
                for number in range(options.repeats)
            ]
        finally:
            server.kill()
            bare.close()
    found = points(repeats)
    show(found)
    write_json(options.json, found)
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
