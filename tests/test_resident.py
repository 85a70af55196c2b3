"""Resident copies: never over budget, and each is taken once."""

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

from greenroom.runtime.cache import nbytes
from greenroom.runtime.encoding import SegmentState
from greenroom.runtime.resident import ResidentCaches, can_be_resident, rebuilt


def caches(rows: int) -> list[Any]:
    made: list[Any] = [KVCache(), KVCache()]
    for number, cache in enumerate(made):
        keys = mx.random.normal((1, 2, rows, 8), key=mx.random.key(number))
        cache.update_and_fetch(keys, keys + 1)
    return made


def test_the_oldest_makes_room_and_a_copy_is_taken_once() -> None:
    size = nbytes(caches(256))
    resident = ResidentCaches(2 * size)
    for handle in (1, 2, 3):
        resident.put(handle, caches(256))
    assert resident.num_bytes == 2 * size
    assert resident.take(1) is None
    assert resident.take(3) is not None
    assert resident.take(3) is None
    assert resident.take(None) is None
    assert resident.num_bytes == size
    ResidentCaches(size - 1).put(4, caches(256))


def test_only_layers_that_attend_to_everything_can_be_put_together() -> None:
    assert can_be_resident(caches(3))
    assert not can_be_resident([KVCache(), RotatingKVCache(max_size=8)])
    assert not can_be_resident([])


def test_rebuilt_rows_are_the_old_ones_then_the_decoded_ones_with_room_to_grow() -> None:
    live = caches(300)
    new = [(c.keys[..., :5, :] * 2, c.values[..., :5, :] * 2) for c in caches(5)]
    made: list[Any] = rebuilt(live, 290, [SegmentState(5, new)])
    for old, cache, (keys, values) in zip(live, made, new, strict=True):
        assert cache.offset == 295
        assert mx.array_equal(cache.keys[..., :290, :], old.keys[..., :290, :])
        assert mx.array_equal(cache.keys[..., 290:295, :], keys)
        assert mx.array_equal(cache.values[..., 290:295, :], values)
        room = cache.keys.shape[2]
        assert room >= 295 + 256
        more = mx.zeros((1, 2, 200, 8))
        cache.update_and_fetch(more, more)
        assert cache.keys.shape[2] == room, "a question and an answer cost no reallocation"
