"""What a codec costs at rest: quality, bytes and milliseconds, on the default model.

A context of English technical prose (the Python manual's topics, which every Python carries) is
computed in floats, encoded, restored, and the next 256 tokens are scored on it, as after a restart.
Reported per codec: the perplexity against the float cache with a 95 % interval over windows, how
often the likeliest token is the same, bits per element, and milliseconds to encode and decode.

    python -m benchmarks.quality [--context 1024] [--windows 20] [--json [FILE]]

A window of 4096 tokens takes a minute or more on a CPU. With ``--pieces FOLDER`` each window's
figures are kept in a file as soon as they are there, and a run that was stopped (``--seconds`` ends
it by itself) goes on where it was when it is started again.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom import BLAS

# isort: split
import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, make_prompt_cache

from benchmarks.figures import add_outputs, frontier, write_json
from greenroom.runtime.cache import slice_states
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.codec import CODECS, DEFAULT_CODEC
from greenroom.runtime.download import ensure_model
from greenroom.runtime.encoding import encode
from greenroom.runtime.layers import load_settings
from greenroom.runtime.loader import load, pick_device
from greenroom.runtime.restore import restore
from greenroom.runtime.spec import CacheSpec, extract_spec

SCORED = 256
CHUNK = 256

Row = dict[str, float]


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    if BLAS.warning:
        print(BLAS.warning, file=sys.stderr)
    model, tokenizer = _default_model()
    spec = extract_spec(model)
    tokens = tokenizer.encode("\n\n".join(topics[name] for name in sorted(topics)))
    size = options.context + SCORED + 1
    if len(tokens) < size * options.windows:
        sys.exit(f"the prose has {len(tokens)} tokens: too few for {options.windows} windows")
    stride = (len(tokens) - size) // max(1, options.windows - 1)
    windows = [tokens[i * stride : i * stride + size] for i in range(options.windows)]
    names = options.codecs.split(",") if options.codecs else list(CODECS)
    rows: dict[str, list[Row]] = {name: [] for name in names}
    deadline = time.monotonic() + options.seconds
    for number, window in enumerate(windows):
        piece = Path(options.pieces or ".", f"{options.context}-{options.windows}-{number}.json")
        done = json.loads(piece.read_text()) if options.pieces and piece.exists() else {}
        missing = [name for name in names if name not in done]
        if missing and time.monotonic() < deadline:
            print(f"window {number + 1} of {len(windows)}", file=sys.stderr, flush=True)
            done |= _one_window(model, spec, window, options.context, missing)
            if options.pieces:
                piece.parent.mkdir(parents=True, exist_ok=True)
                piece.write_text(json.dumps(done))
        for name in names:
            rows[name] += [done[name]] if name in done else []
    summary = {name: _summary(each) for name, each in rows.items() if each}
    _print(summary, options.context, min(len(each) for each in rows.values()))
    write_json(options.json, summary)
    if options.plot:
        _plot(summary, options.plot)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--context", type=int, default=1024, help="tokens restored per window")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--codecs", default="", help="comma-separated; all of them by default")
    add_outputs(parser, "quality", plot=True)
    parser.add_argument("--pieces", default="", help="folder of the windows done so far")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no window after so long"
    )
    return parser.parse_args(arguments)


def _default_model() -> tuple[Any, Any]:
    entry = load_catalog().default("cpu")
    path = ensure_model(entry, load_settings().settings.models_path)
    loaded = load(path, device=pick_device())
    return loaded.model, loaded.tokenizer


def _one_window(
    model: Any, spec: CacheSpec, window: list[int], context: int, names: Sequence[str]
) -> dict[str, Row]:
    live: list[KVCache] = make_prompt_cache(model)
    for start in range(0, context, CHUNK):
        stop = min(start + CHUNK, context)
        # Keys and values only: an output head over every position would cost as much as a layer.
        model.model(mx.array([window[start:stop]]), cache=live)
        mx.eval([cache.state[:2] for cache in live])
    states = slice_states(live, 0, context)
    mx.eval(states.layers)
    # The float cache goes on by itself: as exact as a restored one, and free.
    base_loss, base_best = _score(model, live, window[context:])
    rows: dict[str, Row] = {}
    for name in names:
        payload, encode_ms = _timed(partial(encode, CODECS[name], spec, states))
        # The first decode meets fresh pages, the next ones more often used memory.
        times = [_timed(partial(restore, spec, [(payload, context)], SCORED)) for _ in range(3)]
        worked = time.process_time()
        restored = restore(spec, [(payload, context)], SCORED)
        mx.eval([cache.state[:2] for cache in restored])
        decode_cpu_ms = 1000 * (time.process_time() - worked)
        loss, best = _score(model, restored, window[context:])
        rows[name] = {
            "loss": loss - base_loss,
            "agree": np.mean(np.array(best == base_best)).item(),
            "bits": 8 * payload.num_bytes / (context * spec.elements_per_token),
            "encode_ms": encode_ms,
            "first_decode_ms": times[0][1],
            "decode_ms": min(ms for _, ms in times[1:]),
            "decode_cpu_ms": decode_cpu_ms,
        }
    return rows


def _score(model: Any, caches: list[KVCache], tokens: list[int]) -> tuple[float, mx.array]:
    """Mean loss over the tokens after the first, in nats, and the likeliest token at each."""
    logits = model(mx.array([tokens[:-1]]), cache=caches)[0].astype(mx.float32)
    targets = mx.array(tokens[1:])
    picked = mx.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    loss = (mx.logsumexp(logits, axis=-1) - picked).mean()
    best = logits.argmax(axis=-1)
    mx.eval(loss, best)
    return np.array(loss).item(), best


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - started)


def _summary(rows: Sequence[Row]) -> Row:
    losses = [row["loss"] for row in rows]
    half = 1.96 * statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    mean = statistics.fmean(losses)
    return {
        "perplexity_percent": 100 * math.expm1(mean),
        "low_percent": 100 * math.expm1(mean - half),
        "high_percent": 100 * math.expm1(mean + half),
        "agree_percent": 100 * statistics.fmean(row["agree"] for row in rows),
        **{
            key: statistics.median(row[key] for row in rows)
            for key in ("bits", "encode_ms", "first_decode_ms", "decode_ms", "decode_cpu_ms")
        },
    }


def _print(summary: dict[str, Row], context: int, windows: int) -> None:
    print(
        f"{context} tokens restored, {SCORED} scored, {windows} windows; default {DEFAULT_CODEC}\n"
    )
    print(
        "| codec | bits/element | perplexity vs float (95 %) | same top token | encode ms "
        "| decode ms, first | decode ms | in processor time |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, s in summary.items():
        label = f"{name} (the reference's)" if name == "q4" else name
        print(
            f"| {label} | {s['bits']:.2f} | {s['perplexity_percent']:+.2f} % "
            f"({s['low_percent']:+.2f} to {s['high_percent']:+.2f}) | {s['agree_percent']:.2f} % "
            f"| {s['encode_ms']:.0f} | {s['first_decode_ms']:.0f} | {s['decode_ms']:.0f} "
            f"| {s['decode_cpu_ms']:.0f} |"
        )
    best = ", ".join(sorted(frontier(_points(summary))))
    print(f"\non the frontier of bytes, perplexity and processor time: {best}")


def _points(summary: dict[str, Row]) -> dict[str, tuple[float, float, float]]:
    """Bits, perplexity and milliseconds: of the processor, which a busy machine disturbs less."""
    return {
        name: (s["bits"], s["perplexity_percent"], s["decode_cpu_ms"])
        for name, s in summary.items()
    }


def _plot(summary: dict[str, Row], file: Path) -> None:
    """Perplexity over bits, a disc's area for the time to decode; rings are on the frontier."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = _points(summary)
    best = frontier(points)
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, (bits, perplexity, ms) in points.items():
        if name == "float":
            continue  # at 32 bits it would squeeze the others together
        s = summary[name]
        color = "tab:red" if name == DEFAULT_CODEC else "tab:blue"
        edge = "black" if name in best else "none"
        axes.scatter(bits, perplexity, s=3 * ms, color=color, edgecolors=edge, alpha=0.7)
        axes.plot([bits] * 2, [s["low_percent"], s["high_percent"]], color=color, alpha=0.4)
        label = f"{name}{' (default)' if name == DEFAULT_CODEC else ''}\n{ms:.0f} ms"
        axes.annotate(label, (bits, perplexity), (8, 6), textcoords="offset points", fontsize=8)
    axes.set(xlabel="bits per element", ylabel="perplexity over float, %")
    axes.set_title("discs: processor time to decode; ringed: on the frontier", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    print(f"wrote {file}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
