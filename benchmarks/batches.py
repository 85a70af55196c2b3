"""mlx-lm's own batched generation, in the bare engine's process: rates and gaps, no server."""

import copy
import time
from typing import Any, cast

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, GenerationBatch, StopSequences, generation_stream
from mlx_lm.models.cache import make_prompt_cache

CHUNK = 256


class Batches:
    """A loaded model and prompts that it has prefilled, so that only decoding is measured."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: dict[tuple[int, ...], tuple[list[Any], int]] = {}

    def decode(self, prompts: list[list[int]], num_tokens: int) -> float:
        """Tokens a second of ``GenerationBatch`` from the first token to the last, all rows.

        The prompts are of equal length or nearly.
        """
        rows = [self._prefilled(tokens) for tokens in prompts]
        layers = zip(*(caches for caches, _ in rows), strict=True)
        batch = GenerationBatch(
            model=self._model,
            uids=list(range(len(rows))),
            inputs=mx.array([first for _, first in rows], dtype=mx.uint32),
            prompt_cache=[type(layer[0]).merge(list(layer)) for layer in layers],
            tokens=[[] for _ in rows],
            samplers=[_greedy] * len(rows),
            fallback_sampler=_greedy,
            logits_processors=[[] for _ in rows],
            stop_sequences=[StopSequences(None) for _ in rows],
            max_tokens=[num_tokens + 1] * len(rows),
        )
        batch.next()
        begun = time.perf_counter()
        for _ in range(num_tokens - 1):
            batch.next()
        return len(rows) * (num_tokens - 1) / (time.perf_counter() - begun)

    def newcomer(
        self, context: list[int], newcomer: list[int], step: int, before: int
    ) -> dict[str, Any]:
        """A cold prompt joins a ``BatchGenerator`` in mid-decode.

        One row decodes after ``context``; once it has ``before`` tokens the ``newcomer`` is
        inserted and prefilled in chunks of ``step``. Returns when each of the row's tokens came,
        when the newcomer was inserted and when its first token came; seconds on one clock.
        """
        caches, first = self._prefilled(context)
        generator = BatchGenerator(self._model, prefill_step_size=step)
        (row,) = generator.insert([[first]], [4096], caches=[copy.deepcopy(caches)])
        arrivals: list[float] = []
        inserted, other, came = 0.0, -1, 0.0
        while not came:
            if other < 0 and len(arrivals) >= before:
                inserted = time.perf_counter()
                (other,) = generator.insert([newcomer], [2])
            for response in generator.next()[1]:
                if response.uid == row:
                    arrivals.append(time.perf_counter())
                elif not came:
                    came = time.perf_counter()
        while generator.next()[1][0].uid != row:
            pass
        arrivals.append(time.perf_counter())
        generator.remove([row, other])
        mx.synchronize(generation_stream)
        return {"arrivals": arrivals, "sent": inserted, "first": came}

    def _prefilled(self, tokens: list[int]) -> tuple[list[Any], int]:
        """The caches of a prompt and the first token of its answer."""
        key = tuple(tokens)
        if key not in self._known:
            caches = make_prompt_cache(self._model)
            for start in range(0, len(tokens), CHUNK):
                chunk = mx.array([tokens[start : start + CHUNK]], dtype=mx.uint32)
                logits = self._model(chunk, cache=caches)
                mx.eval(logits, [c.state for c in caches])
            self._known[key] = caches, cast("int", mx.argmax(logits[0, -1]).item())
        return self._known[key]


def _greedy(logprobs: mx.array) -> mx.array:
    return mx.argmax(logprobs, axis=-1)
