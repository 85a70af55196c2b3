"""Time to the first token: cold, hot and after SIGKILL, against the bare engine.

Per prompt length and repeat, in this order, so that every ratio is within one run: mlx-lm alone on
the cold prompt (at its best chunk size), the server on it, a follow-up of 16 new tokens, SIGKILL
and restart, another follow-up, and the floor: one bare forward of the follow-up's new tokens over
the decoded context, in another process. The client's clock, over HTTP, streamed. Medians.

    python -m benchmarks.ttft [--lengths 512,1024,2048,4096] [--repeats 3] [--chunk N]
                             [--json ttft.json] [--plot ttft.png]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from mlx_lm.utils import load_tokenizer
from rich.console import Console
from rich.table import Table

from benchmarks.serving import Answer, BareEngine, Server, shared_models
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.download import ensure_model
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.text import Text

CHUNKS = (128, 256, 512)
FLOOR_TIMES = 5
FOLLOW_UPS = ("Say more about this, in one word.", "And now say it in another word.")


class Bench:
    """The processes, and the prose that prompts are cut from."""

    def __init__(self, home: Path, model: Path) -> None:
        self.home = home
        self.text = Text(load_tokenizer(model))
        self.raw = BareEngine(model, "raw")
        self.floor = BareEngine(model, "floor")
        self.server = Server(home)
        self._prose = "\n\n".join(topics[name] for name in sorted(topics))
        self._at = 0

    def close(self) -> None:
        self.server.kill()
        self.raw.close()
        self.floor.close()

    def question(self, length: int) -> list[dict[str, str]]:
        """A prompt of ``length`` tokens or a few less, of prose that no prompt had before."""
        rest = self._prose[self._at : self._at + 8 * length]
        ids = self.text.encode(rest)
        overhead = len(self.tokens([{"role": "user", "content": ""}]))
        content = self.text.decode(ids[: length - overhead])
        self._at += len(content)
        return [{"role": "user", "content": content}]

    def tokens(self, messages: list[dict[str, str]]) -> list[int]:
        """The prompt's token ids as a server without memory computes them."""
        rendered = self.text.render([ChatMessage(m["role"], m["content"]) for m in messages])  # type: ignore[arg-type]
        return list(self.text.encode(rendered))


def measure(bench: Bench, length: int, repeat: int, chunk: int) -> dict[str, float]:
    """One repeat at one length; seconds, tokens and bytes."""
    messages = bench.question(length)
    tokens = bench.tokens(messages)
    raw_s = bench.raw.ask(op="raw", tokens=tokens, chunk=chunk)
    name = f"agent-{length}-{repeat}"
    bench.server.start()
    before = bench.server.bytes_written()
    cold = bench.server.ask(name, messages)
    cold_bytes = bench.server.bytes_written() - before
    follow_ups: list[Answer] = []
    for question in FOLLOW_UPS:
        if follow_ups:
            bench.server.kill()
            bench.server.start()
        answer = follow_ups[-1] if follow_ups else cold
        messages += [
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": question},
        ]
        before = bench.server.bytes_written()
        follow_ups.append(bench.server.ask(name, messages))
        written = bench.server.bytes_written() - before
    bench.server.kill()
    hot, restarted = follow_ups
    new = bench.tokens(messages)[-(restarted.prompt_tokens - restarted.cached_tokens) :]
    floor = bench.floor.ask(
        op="floor",
        store=str(bench.home / "store"),
        head=restarted.head,
        length=restarted.cached_tokens,
        tokens=new,
        times=FLOOR_TIMES,
    )
    return {
        "prompt_tokens": cold.prompt_tokens,
        "new_tokens": len(new),
        "raw_s": raw_s,
        "cold_s": cold.ttft_s,
        "hot_s": hot.ttft_s,
        "restarted_s": restarted.ttft_s,
        "floor_s": statistics.median(floor),
        "cached_share": restarted.cached_tokens / (hot.prompt_tokens + 8),
        "cold_bytes": cold_bytes,
        "follow_up_bytes": written,
    }


def best_chunk(bench: Bench, length: int) -> tuple[int, dict[int, float]]:
    """mlx-lm's fastest chunk size at this length, and what each took."""
    tokens = bench.tokens(bench.question(length))
    candidates = [c for c in CHUNKS if c < 2 * length]
    taken = {c: bench.raw.ask(op="raw", tokens=tokens, chunk=c) for c in candidates}
    return min(taken, key=lambda c: taken[c]), taken


def summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians, and ratios as medians of each repeat's own ratio."""
    found = {key: statistics.median(r[key] for r in rows) for key in rows[0]}
    for name, over, under in (
        ("cold/raw", "cold_s", "raw_s"),
        ("hot/floor", "hot_s", "floor_s"),
        ("restarted/floor", "restarted_s", "floor_s"),
        ("raw/hot", "raw_s", "hot_s"),
        ("raw/restarted", "raw_s", "restarted_s"),
    ):
        found[name] = statistics.median(r[over] / r[under] for r in rows)
    return found


def show(results: dict[int, dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("prompt", "raw (chunk)", "cold", "hot", "restarted", "floor", box=None)
    for name in ("cold/raw", "hot/floor", "restarted/floor", "raw/restarted", "written"):
        table.add_column(name)
    for result in results.values():
        m = result["median"]
        table.add_row(
            f"{m['prompt_tokens']:.0f}",
            f"{m['raw_s']:.2f} s ({result['chunk']})",
            *(f"{m[key]:.2f} s" for key in ("cold_s", "hot_s", "restarted_s", "floor_s")),
            *(f"{m[key]:.2f}" for key in ("cold/raw", "hot/floor", "restarted/floor")),
            f"{m['raw/restarted']:.1f}",
            f"{m['cold_bytes'] / 1e6:.1f} + {m['follow_up_bytes'] / 1e6:.2f} MB",
        )
    Console(width=150).print(table)


def plot(results: dict[int, dict[str, Any]], file: Path) -> None:
    """Draw the medians over the prompt's length, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    lengths = list(results)
    for key, label in (
        ("raw_s", "mlx-lm, cold"),
        ("cold_s", "greenroom, cold"),
        ("restarted_s", "greenroom, after SIGKILL and restart"),
        ("hot_s", "greenroom, hot"),
        ("floor_s", "floor: one bare forward"),
    ):
        axes.plot(lengths, [results[n]["median"][key] for n in lengths], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel="seconds to first token")
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="time to the first token")
    parser.add_argument("--lengths", default="512,1024,2048,4096")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunk", type=int, help="mlx-lm's chunk size, if not the best of a few")
    parser.add_argument("--json", type=Path, default=Path("ttft.json"))
    parser.add_argument("--plot", type=Path, default=Path("ttft.png"))
    options = parser.parse_args(arguments)
    model = ensure_model(load_catalog().default("cpu"), load_settings().settings.models_path)
    results: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, shared_models(Path(folder)) as home:
        bench = Bench(home, model)
        try:
            for length in map(int, options.lengths.split(",")):
                chunks: dict[int, float] = {}
                chunk = options.chunk
                if chunk is None:
                    chunk, chunks = best_chunk(bench, length)
                rows = []
                for repeat in range(options.repeats):
                    rows.append(measure(bench, length, repeat, chunk))
                    print(f"{length}: {rows[-1]}", file=sys.stderr, flush=True)
                results[length] = {
                    "chunk": chunk,
                    "raw_by_chunk_s": chunks,
                    "median": summary(rows),
                    "repeats": rows,
                }
        finally:
            bench.close()
    show(results)
    options.json.write_text(json.dumps(results, indent=1))
    plot(results, options.plot)
    print(f"wrote {options.json} and {options.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
