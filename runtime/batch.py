"""The decoding rows: mlx-lm's ``GenerationBatch``, joined and left in mid-decode."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import GenerationBatch, StopSequences
from mlx_lm.models.cache import BatchKVCache, KVCache

from greenroom.runtime.cache import capacity_for
from greenroom.runtime.job import Job
from greenroom.runtime.records import FinishReason
from greenroom.runtime.sampling import Draw, greedy

_ENDLESS = 1 << 62


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


class _Reader(GenerationBatch):
    """A row that has something to read: its first token is fed in the batch's next step, with
    everybody else's, not in a pass of its own."""

    def _step(self) -> tuple[list[int], list[mx.array]]:
        self._next_logprobs = [mx.zeros(1)]  # of the token that comes first, which is known
        return [], []


class DecodeBatch:
    """Rows that decode together, one token each a step.

    A row's cache holds every token it has emitted: the step that emits a token has computed its K
    and V already, since the loop runs one token ahead. A row that ``read``s is given its tokens
    instead of drawing them; its cache holds those that it has been given in a step.
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

    def read(self, uid: int, following: Callable[[], int], cache: list[Any]) -> None:
        """Add a row that is given what ``following`` returns, call by call; it takes ``cache``.

        It reads one token a step until it is made to leave. Since the loop runs one token ahead,
        ``following`` is called once more than tokens are read.
        """
        row = _Reader(
            model=self._model,
            uids=[uid],
            inputs=mx.array([following()], dtype=mx.uint32),
            prompt_cache=[_batched(c) for c in cache],
            tokens=[[]],
            samplers=[lambda _: mx.array([following()], dtype=mx.uint32)],
            fallback_sampler=greedy,
            logits_processors=[[]],
            stop_sequences=[StopSequences()],
            max_tokens=[_ENDLESS],
        )
        self._batch.extend(row)

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

    def rest(self, uid: int, headroom: int) -> list[Any]:
        """As ``leave``, for a row that goes on by itself: so many tokens fit behind its own."""
        cache = self.leave(uid)
        return [_roomy(c, headroom) for c in cache]

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


def _roomy(cache: Any, headroom: int) -> Any:
    """The cache with room behind its tokens: growing would copy all of them once more."""
    if type(cache) is KVCache and cache.keys is not None and cache.values is not None:
        spare = capacity_for(cache.offset + headroom) - cache.keys.shape[2]
        if spare > 0:
            pad = [(0, 0), (0, 0), (0, spare), (0, 0)]
            cache.keys, cache.values = mx.pad(cache.keys, pad), mx.pad(cache.values, pad)
    return cache
