"""A trial at load: does the model give two rows of a batch what it gives each alone?

Some models of mlx-lm do not, and say nothing: gemma2 lays the mask of a padded batch over the
wrong axis, afm7 errs in the padded row too. Such a model must be served one sequence at a time.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.errors import ModelUnavailable

# The shorter row is padded; four tokens fill the n-grams that some models keep.
_PROMPTS = (range(1, 17), range(20, 24))
_NEXT = 9
# Of the largest logit. Products of other shapes round otherwise; what is wrong is off by far more.
_TOLERANCE = {mx.float32: 1e-3}
_COARSE = 0.05
_WORDS = ("alone", "together")


def record(folder: Path, fingerprint: str, device: str) -> Path:
    """The file that keeps the verdict on a model: of these weights, on this device, as these
    versions of MLX and mlx-lm compute."""
    return folder / f"{fingerprint}-{device}-mlx-{version('mlx')}-lm-{version('mlx-lm')}.txt"


def serves_rows_together(model: nn.Module, verdict: Path | None = None) -> bool:
    """Decode one token after two short prompts in one batch, and compare the padded row's logits
    with those that it has alone.

    Costs four forwards of a few tokens, unless the file ``verdict`` holds the answer of another
    time. On the MLX thread. Raises ModelUnavailable when the model cannot decode in a batch at
    all: a single sequence does that too.
    """
    if verdict is not None and verdict.is_file() and (known := verdict.read_text()) in _WORDS:
        return known == _WORDS[True]
    try:
        together = _compare(model)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ModelUnavailable(f"this model cannot decode in a batch (mlx-lm: {error})") from error
    if verdict is not None:
        verdict.parent.mkdir(parents=True, exist_ok=True)
        verdict.write_text(_WORDS[together])
    return together


def _compare(call: Any) -> bool:
    caches = [make_prompt_cache(call) for _ in _PROMPTS]
    for tokens, cache in zip(_PROMPTS, caches, strict=True):
        mx.eval(call(mx.array([list(tokens)], mx.uint32), cache=cache)[:, -1])
    both = [type(one).merge([one, other]) for one, other in zip(*caches, strict=True)]
    row = mx.array([[_NEXT]], mx.uint32)
    together = call(mx.concatenate([row, row]), cache=both)[1, -1]
    alone = call(row, cache=caches[1])[0, -1]
    tolerance = _TOLERANCE.get(alone.dtype, _COARSE)
    apart = mx.abs(together.astype(mx.float32) - alone.astype(mx.float32)).max()
    largest = mx.abs(alone.astype(mx.float32)).max()
    return bool((apart <= tolerance * mx.maximum(1.0, largest)).item())
