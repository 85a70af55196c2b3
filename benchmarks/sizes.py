"""What a large model's memory takes at rest, by arithmetic that is shown.

Gemma 3 12B: 8 layers of full attention and 40 with a window of 1,024 tokens, 8 heads of 256.
One layer of each kind is filled with random keys and values, 32,768 tokens in turns of 2,048, and
encoded as it would be on disk; the rest is multiplication. Beside it stands the format of a system
that keeps every layer's every token in 4.5 bits.

    python -m benchmarks.sizes [--tokens 32768] [--codec k5cv5] [--json [FILE]]
"""

import argparse
import sys
from collections.abc import Sequence

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom import BLAS

# isort: split
import mlx.core as mx
import msgspec

from benchmarks.figures import add_outputs, write_json
from greenroom.runtime.codec import DEFAULT_CODEC, codec_named
from greenroom.runtime.encoding import SegmentState, encode
from greenroom.runtime.snapshot import Rows
from greenroom.runtime.spec import CacheSpec, LayerSpec

HEADS, DIM, WINDOW = 8, 256, 1024
FULL_LAYERS, WINDOW_LAYERS = 8, 40
TURN = 2048
REFERENCE_BITS = 4.5


class Sizes(msgspec.Struct, frozen=True):
    """Bytes, of one layer of each kind and of all of them."""

    codec: str
    tokens: int
    full_layer: int
    window_layer: int

    @property
    def full(self) -> int:
        return FULL_LAYERS * self.full_layer

    @property
    def window(self) -> int:
        return WINDOW_LAYERS * self.window_layer

    @property
    def reference(self) -> float:
        """Every layer, every token, 4.5 bits for each of K and V."""
        elements = (FULL_LAYERS + WINDOW_LAYERS) * self.tokens * 2 * HEADS * DIM
        return elements * REFERENCE_BITS / 8


def measure(codec_name: str, tokens: int) -> Sizes:
    """Encode one layer of each kind."""
    codec = codec_named(codec_name)
    full = CacheSpec((LayerSpec("full", HEADS, DIM, DIM, "bfloat16"),), tokens)
    window = CacheSpec((LayerSpec("window", HEADS, DIM, DIM, "bfloat16", WINDOW),), tokens)
    in_full = 0
    for start in range(0, tokens, TURN):
        rows = min(TURN, tokens - start)
        in_full += encode(codec, full, SegmentState(rows, [random_rows(rows)])).num_bytes
    keys, values = random_rows(WINDOW)
    held = Rows(tokens - WINDOW, keys, values)
    tail = encode(codec, window, SegmentState(WINDOW, [(held.keys, held.values)]))
    return Sizes(codec.label, tokens, in_full, tail.num_bytes)


def random_rows(rows: int) -> tuple[mx.array, mx.array]:
    shape = (1, HEADS, rows, DIM)
    return mx.random.normal(shape).astype(mx.bfloat16), mx.random.normal(shape).astype(mx.bfloat16)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="bytes of a Gemma 3 12B agent at rest")
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--codec", default=DEFAULT_CODEC)
    add_outputs(parser, "sizes")
    options = parser.parse_args(arguments)
    if BLAS.warning:
        print(BLAS.warning, file=sys.stderr)
    s = measure(options.codec, options.tokens)
    print(f"Gemma 3 12B, {s.tokens} tokens, one head and one boundary, {s.codec}:")
    print(f"  one full layer, {s.tokens} rows     {s.full_layer / 1e6:9.2f} MB")
    print(f"  x {FULL_LAYERS} full layers                 {s.full / 1e6:9.1f} MB")
    print(f"  one window layer, {WINDOW} rows    {s.window_layer / 1e6:9.2f} MB")
    print(f"  x {WINDOW_LAYERS} window layers              {s.window / 1e6:9.1f} MB")
    print(f"  together                        {(s.full + s.window) / 1e6:9.1f} MB")
    share = (s.full + s.window) / s.reference
    print(
        f"  all {FULL_LAYERS + WINDOW_LAYERS} layers x {s.tokens} rows x {2 * HEADS * DIM} "
        f"x {REFERENCE_BITS} bits   {s.reference / 1e6:9.1f} MB, of which that is {share:.3f}"
    )
    write_json(options.json, s)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
