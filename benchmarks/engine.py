"""The bare engine in a process of its own: what greenroom is measured against.

    python -m benchmarks.engine MODEL_FOLDER raw|floor

Reads one JSON request a line from standard input and answers each with one line: ``raw`` is a cold
prompt through mlx-lm's own ``generate_step``; ``decode`` and ``newcomer`` are its batches;
``floor`` is one forward pass of the new tokens over a context that was decoded from segments
beforehand, and what reading and decoding took. Same weights, BLAS and threads as the server.
"""

import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom import BLAS

# isort: split
import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import trim_prompt_cache

from benchmarks.batches import Batches
from greenroom.runtime.codec import Payload
from greenroom.runtime.head import last_position_head
from greenroom.runtime.host import helpers
from greenroom.runtime.loader import load, pick_device
from greenroom.runtime.restore import restore
from greenroom.runtime.spec import extract_spec
from greenroom.runtime.vault import Vault


class Engine:
    """A loaded model: as mlx-lm has it, or with logits ``last_only`` for the last position."""

    def __init__(self, path: Path, *, last_only: bool) -> None:
        self._model: Any = load(path, device=pick_device()).model
        self._spec = extract_spec(self._model)
        if last_only:
            last_position_head(self._model)
        self.batches = Batches(self._model)
        self._pool = ThreadPoolExecutor(helpers())  # as the server has it

    def raw(self, tokens: list[int], chunk: int) -> float:
        """Seconds until mlx-lm's generator gives the first token of a cold prompt."""
        begun = time.perf_counter()
        generator = generate_step(
            mx.array(tokens), self._model, max_tokens=1, prefill_step_size=chunk
        )
        next(iter(generator))
        taken = time.perf_counter() - begun
        mx.clear_cache()
        return taken

    def floor(
        self, store: Path, head: str, length: int, tokens: list[int], times: int
    ) -> dict[str, float]:
        """Median seconds for one forward of ``tokens`` after the first ``length`` of a chain.

        And those for reading the chain's segments from disk and for decoding them.
        """
        found: dict[str, list[float]] = {"read": [], "decode": [], "forward": []}
        for _ in range(times):
            begun = time.perf_counter()
            pieces = _pieces(Vault(store), head, length)
            read = time.perf_counter()
            caches = restore(self._spec, pieces, len(tokens), self._pool)
            found["read"].append(read - begun)
            found["decode"].append(time.perf_counter() - read)
        for _ in range(times):
            begun = time.perf_counter()
            logits = self._model(mx.array(tokens)[None], cache=caches)
            mx.eval(mx.argmax(logits[:, -1], axis=-1), [c.state for c in caches])
            found["forward"].append(time.perf_counter() - begun)
            trim_prompt_cache(caches, len(tokens))
        return {name: statistics.median(seconds) for name, seconds in found.items()}


def _pieces(vault: Vault, head: str, length: int) -> list[tuple[Payload, int]]:
    pieces: list[tuple[Payload, int]] = []
    wanted: str | None = head
    stop = length
    while wanted is not None:
        segment, payload = vault.read(wanted)
        if segment.start < stop:
            pieces.append((payload, min(stop, segment.end) - segment.start))
            stop = segment.start
        wanted = segment.parent
    return pieces[::-1]


def main() -> int:
    """Answer until standard input ends."""
    if BLAS.warning:
        print(BLAS.warning, file=sys.stderr)
    # As the server does: a thread other than the first one decodes some 5 % faster.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(serve, Path(sys.argv[1]), sys.argv[2]).result()
    return 0


def serve(model: Path, kind: str) -> None:
    """Load the model and answer, all on one thread."""
    engine = Engine(model, last_only=kind == "floor")
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        match request.pop("op"):
            case "raw":
                answer: object = engine.raw(**request)
            case "decode":
                answer = engine.batches.decode(**request)
            case "newcomer":
                answer = engine.batches.newcomer(**request)
            case _:
                answer = engine.floor(Path(request.pop("store")), **request)
        print(json.dumps(answer), flush=True)
    del engine
    mx.clear_streams()


if __name__ == "__main__":
    sys.exit(main())
