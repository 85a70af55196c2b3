"""Read and decode an agent's memory, against the straightforward way; and what it holds up.

The agent has ``--tokens`` tokens in segments of 512, random numbers in the default model's shapes.

Greenroom's way is what a turn of a cold agent does: the files are read and their digests checked
on a pool of two threads, then ``restore`` decodes them into the caches. The straightforward way,
of the very same bytes: ``mx.load`` of each file; for each segment, layer and of K and V unpack the
codes, ``codes * scale + bias`` and, where the codec rotates, ``mx.hadamard_transform``, in whole
arrays; then ``mx.concatenate`` over the segments, and an evaluation of all layers together. It
checks no digest. Both end with caches ready for a forward, hold the same numbers, and read files
that the system has in memory; they take turns, and what the last ones used is there to be used
again.

    python -m benchmarks.restore [--tokens 4096] [--repeats 15] [--codecs k5cv5,k5v4r]
                                [--json [FILE]]
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from greenroom.runtime.codec import CODECS, Codec, sides
from greenroom.runtime.encoding import SegmentState, encode
from greenroom.runtime.quantize import GROUP, TensorFormat

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom.runtime.restore import restore
from greenroom.runtime.segments import make_segment
from greenroom.runtime.spec import CacheSpec, LayerSpec
from greenroom.runtime.vault import Vault

# isort: split
import mlx.core as mx
import msgspec
from mlx_lm.models.cache import KVCache

from benchmarks.figures import Figure, add_outputs, figure, write_json

SEGMENT = 512
# SmolLM2-135M in float32, as it is served on a CPU.
SPEC = CacheSpec((LayerSpec("full", 3, 64, 64, "float32"),) * 30, 8192)


class Result(msgspec.Struct, frozen=True):
    """One codec: milliseconds, and how many times faster than the straightforward way."""

    codec: str
    greenroom_ms: Figure
    straightforward_ms: Figure
    times_faster: Figure


def remember(vault: Vault, codec: Codec, tokens: int) -> list[str]:
    """Write a chain of segments; their ids from the root on."""
    ids: list[str] = []
    for start in range(0, tokens, SEGMENT):
        count = min(SEGMENT, tokens - start)
        keys = [mx.random.normal((1, 3, count, 64)) * 4 for _ in SPEC.layers]
        state = SegmentState(count, [(k, mx.random.normal(k.shape)) for k in keys])
        payload = encode(codec, SPEC, state)
        segment = make_segment(
            parent=ids[-1] if ids else None,
            start=start,
            tokens=range(count),
            kind="prompt",
            namespace="bench",
            fingerprint="none",
            codec=codec.label,
        )
        vault.write(segment, payload)
        ids.append(segment.id)
    return ids


def ours(vault: Vault, ids: Sequence[str], pool: Executor) -> list[Any]:
    """A cold agent's turn up to its first forward."""
    payloads = [payload for _, payload in pool.map(vault.read, ids)]
    return restore(SPEC, [(p, p.num_tokens) for p in payloads], 16, pool)


def straightforward(files: Sequence[Path], codec: Codec) -> list[KVCache]:
    """See the top."""
    loaded: list[dict[str, mx.array]] = []
    for file in files:
        arrays = mx.load(str(file))
        assert isinstance(arrays, dict)
        loaded.append(arrays)
    caches: list[KVCache] = []
    for layer, cell in enumerate(SPEC.layers):
        assert isinstance(cell, LayerSpec)
        joined = [
            mx.concatenate([_dequantized(a, which, layer, fmt) for a in loaded], axis=1)[None]
            for which, fmt, _ in sides(cell, codec)
        ]
        cache = KVCache()
        cache.state = (joined[0], joined[1], joined[0].shape[2])
        caches.append(cache)
    mx.eval([cache.state[:2] for cache in caches])
    return caches


def _dequantized(
    arrays: dict[str, mx.array], which: str, layer: int, fmt: TensorFormat | None
) -> mx.array:
    """One layer's K or V of one segment, (heads, rows, dim)."""
    assert fmt is not None
    scale, bias = (
        arrays[f"0.{which}.{part}"][layer].astype(mx.float32) for part in ("scale", "bias")
    )
    codes: mx.array | None = None
    shift = 0
    for plane, bits in enumerate(fmt.planes):
        packed = arrays[f"0.{which}.plane{plane}"][layer]
        parts = [(packed >> (n * bits)) & ((1 << bits) - 1) for n in range(8 // bits)]
        unpacked = mx.concatenate(parts, axis=1) << shift
        codes = unpacked if codes is None else codes | unpacked
        shift += bits
    assert codes is not None
    heads, rows, dim = codes.shape
    if fmt.axis == "channel":
        grouped = codes.reshape(heads, -1, GROUP, dim)
        values = grouped * scale[:, :, None] + bias[:, :, None]
    else:
        values = codes.reshape(heads, rows, -1, GROUP) * scale[..., None] + bias[..., None]
    values = values.reshape(heads, rows, dim)
    return mx.hadamard_transform(values) if fmt.rotated else values


def measure(folder: Path, codec: Codec, tokens: int, repeats: int, pool: Executor) -> Result:
    """Both ways in turn."""
    vault = Vault(folder)
    ids = remember(vault, codec, tokens)
    files = [vault.path(segment_id) for segment_id in ids]
    one, other = ours(vault, ids, pool), straightforward(files, codec)
    for a, b in zip(one, other, strict=True):
        assert b.keys is not None
        assert b.values is not None
        for x, y in ((a.keys, b.keys), (a.values, b.values)):
            if not mx.allclose(x[..., :tokens, :], y, atol=1e-4).item():
                sys.exit("the two ways differ")
    del one, other, a, b, x, y
    rows = [
        (_ms(lambda: ours(vault, ids, pool)), _ms(lambda: straightforward(files, codec)))
        for _ in range(repeats)
    ]
    return Result(
        codec.name,
        figure([a for a, _ in rows]),
        figure([b for _, b in rows]),
        figure([b / a for a, b in rows]),
    )


def _ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="read and decode an agent's memory")
    parser.add_argument("--tokens", type=int, default=4096, help="a multiple of 64")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--codecs", default="k5cv5,k5v4r")
    add_outputs(parser, "restore")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    with ThreadPoolExecutor(2) as pool:
        for name in options.codecs.split(","):
            with tempfile.TemporaryDirectory() as folder:
                results.append(
                    measure(Path(folder), CODECS[name], options.tokens, options.repeats, pool)
                )
    print(f"{options.tokens} tokens, medians with 95 % intervals of {options.repeats}")
    for r in results:
        print(
            f"{r.codec}: {r.greenroom_ms} ms, straightforward {r.straightforward_ms} ms, "
            f"{r.times_faster} times faster"
        )
    write_json(options.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
