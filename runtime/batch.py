"""The decoding rows: mlx-lm's ``GenerationBatch``, joined and left in mid-decode."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import GenerationBatch, StopSequences
from mlx_lm.models.cache import BatchKVCache, KVCache

from greenroom.runtime.job import Job
from greenroom.runtime.records import FinishReason
from greenroom.runtime.sampling import Draw, greedy


class Row:
    """What one row gave in one step; ``cache`` is its per-sequence cache once it has finished."""

    __slots__ = ("cache", "reason", "token", "uid")

    def __init__(
        self, uid: int, token: int, reason: FinishReason | None, cache: list[Any] | None
    ) -> None:
        self.uid = uid
        self.token = token
        self.reason = reason
        self.cache = cache


class DecodeBatch:
    """Rows that decode together, one token each a step.

    A row's cache holds every token it has emitted: the step that emits a token has computed its K
    and V already, since the loop runs one token ahead.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._batch = GenerationBatch.empty(model, greedy)

    def __len__(self) -> int:
        return len(self._batch)

    def join(self, uid: int, job: Job, first_token: int, cache: list[Any], draw: Draw) -> None:
        """Add a prefilled sequence, its ``first_token`` sampled already; it takes ``cache``."""
        row = GenerationBatch(
            model=self._model,
            uids=[uid],
            inputs=mx.array([first_token], dtype=mx.uint32),
            prompt_cache=[_batched(c) for c in cache],
            tokens=[[]],
            samplers=[draw.sampler],
            fallback_sampler=greedy,
            logits_processors=[draw.processors],
            stop_sequences=[StopSequences([(t,) for t in job.stop_tokens])],
            max_tokens=[job.max_tokens - 1],
        )
        if len(self._batch):
            self._batch.extend(row)
        else:
            self._batch = row

    def step(self) -> list[Row]:
        """One token for every row; rows that finish leave the batch and bring their cache out."""
        rows = tuple(self._batch.prompt_cache) if len(self._batch) == 1 else ()
        return [
            Row(r.uid, r.token, r.finish_reason, _taken(rows, r.prompt_cache))
            for r in self._batch.next()
        ]

    def leave(self, uid: int) -> list[Any]:
        """Take a row out before its end; returns its cache, with all emitted tokens in it."""
        index = self._batch.uids.index(uid)
        rows = tuple(self._batch.prompt_cache) if len(self._batch) == 1 else ()
        cache = _taken(rows, self._batch.extract_cache(index))
        self.drop([uid])
        assert cache is not None
        return cache

    def copies(self, uid: int) -> list[Any]:
        """A row's caches, in lazy copies: the row goes on."""
        caches: list[Any] = self._batch.extract_cache(self._batch.uids.index(uid))
        return caches

    def drop(self, uids: Sequence[int]) -> None:
        """Take rows out and forget them."""
        self._batch.filter([i for i, u in enumerate(self._batch.uids) if u not in uids])


def _batched(cache: Any) -> Any:
    """A batch of one made of a plain cache, whose buffers it takes over where their kind allows.

    mlx-lm's ``merge`` copies into buffers without room, which the next token copies again.
    """
    if type(cache) is not KVCache:
        return type(cache).merge([cache])
    batched = BatchKVCache([0])
    batched.state = (
        cache.keys,
        cache.values,
        mx.array([cache.offset]),
        mx.array([0]),
        cache.offset,
    )
    return batched


def _taken(batch: Sequence[Any], copies: list[Any] | None) -> list[Any] | None:
    """A row's caches: the buffers themselves where a ``batch`` of one has no use for them.

    The ``copies`` that mlx-lm makes of a row are lazy, and never made if they are not used.
    """
    if copies is None or not batch:
        return copies
    return [_single(one, copy) for one, copy in zip(batch, copies, strict=True)]


def _single(batched: Any, copy: Any) -> Any:
    if type(batched) is not BatchKVCache or batched.left_padding.item():
        return copy
    cache = KVCache()
    cache.state = (batched.keys, batched.values, copy.offset)
    return cache
