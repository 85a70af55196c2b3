"""Tokens per second: through the server's HTTP door against mlx-lm's bare ``GenerationBatch``.

Two prompts that are answered at length; the server has read them already, and so has the bare
engine in its own process. Each repeat measures batch 1 and batch 2 (two agents at once) on both,
right after each other, in turns: from the first token to the last, while all rows decode.

    python -m benchmarks.decode [--context 512] [--tokens 128] [--repeats 5] [--json [FILE]]
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, add_outputs, figure, write_json
from benchmarks.prose import Messages, Prose, default_model
from benchmarks.serving import Answer, BareEngine, Server, ask, shared_models

AT_LENGTH = "\n\nExplain all of this at length, with many examples."
MAX_TRIES = 12


class Rates(msgspec.Struct, frozen=True):
    """Tokens a second at one batch size, and the server's share of the bare engine's rate."""

    batch: int
    server: Figure
    bare: Figure
    ratio: Figure


class Result(msgspec.Struct, frozen=True):
    """Everything that was measured."""

    context: int
    tokens: int
    rates: list[Rates]


class Options(argparse.Namespace):
    """What can be said on the command line."""

    context: int
    tokens: int
    repeats: int
    batches: list[int]
    json: Path | None


def lasting(server: Server, prose: Prose, length: int, num_tokens: int) -> Messages:
    """A prompt of ``length`` tokens that is answered with ``num_tokens`` at least."""
    for _ in range(MAX_TRIES):
        messages = prose.question(length, AT_LENGTH)
        if server.ask("screening", messages, num_tokens).completion_tokens == num_tokens:
            return messages
    sys.exit(f"no prompt is answered with {num_tokens} tokens")


def rate(answers: Sequence[Answer]) -> float:
    """Tokens a second of all answers together, while all of them decode.

    A piece of text is nearly always a token; where not, each counts for its share.
    """
    begun = max(a.arrivals[0] for a in answers)
    ended = min(a.arrivals[-1] for a in answers)
    tokens = 0.0
    for a in answers:
        share = (a.completion_tokens - 1) / (len(a.arrivals) - 1)
        tokens += share * sum(begun < t <= ended for t in a.arrivals)
    return tokens / (ended - begun)


def measure(
    server: Server, bare: BareEngine, prose: Prose, prompts: Sequence[Messages], options: Options
) -> list[Rates]:
    """All repeats; who goes first changes with every pair."""
    tokens = [prose.tokens(messages) for messages in prompts]
    num = options.tokens
    found: dict[int, list[tuple[float, float]]] = {batch: [] for batch in options.batches}
    numbers = count()
    with ThreadPoolExecutor(max(options.batches)) as pool:

        def served(batch: int) -> float:
            turns = [
                pool.submit(ask, server.url, f"agent-{next(numbers)}", messages, num)
                for messages in prompts[:batch]
            ]
            answers = [turn.result() for turn in turns]
            short = [a.completion_tokens for a in answers if a.completion_tokens != num]
            if short:
                sys.exit(f"answers of {short} tokens instead of {num}")
            return rate(answers)

        def plain(batch: int) -> float:
            return float(bare.ask(op="decode", prompts=tokens[:batch], num_tokens=num))

        for batch in options.batches:  # first use of everything is nobody's figure
            served(batch)
            plain(batch)
        for repeat in range(options.repeats):
            for batch in options.batches:
                if repeat % 2:
                    slow = plain(batch)
                    pair = served(batch), slow
                else:
                    pair = served(batch), plain(batch)
                found[batch].append(pair)
                print(f"batch {batch}: {pair[0]:.1f} {pair[1]:.1f}", file=sys.stderr, flush=True)
    return [
        Rates(
            batch=batch,
            server=figure([s for s, _ in pairs]),
            bare=figure([b for _, b in pairs]),
            ratio=figure([s / b for s, b in pairs]),
        )
        for batch, pairs in found.items()
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="tokens per second through HTTP and bare")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    add_outputs(parser, "decode")
    options = parser.parse_args(arguments, Options())
    model = default_model()
    prose = Prose(model)
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        server = Server(home, "--set", f"stage.max_batch_size={max(options.batches)}")
        bare = BareEngine(model, "raw")
        try:
            server.start()
            prompts = [
                lasting(server, prose, options.context, options.tokens)
                for _ in range(max(options.batches))
            ]
            rates = measure(server, bare, prose, prompts, options)
        finally:
            server.kill()
            bare.close()
    table = Table("batch", "greenroom tok/s", "bare tok/s", "ratio (95 %)", box=None)
    for r in rates:
        table.add_row(str(r.batch), str(r.server), str(r.bare), str(r.ratio))
    Console(width=120).print(table)
    write_json(options.json, Result(options.context, options.tokens, rates))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
