"""Resident copies: never over budget, each taken once, and bit for bit what decoding gives."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache

from greenroom.runtime.cache import nbytes, slice_states
from greenroom.runtime.codec import codec_named
from greenroom.runtime.encoding import decode, encode
from greenroom.runtime.resident import HEADROOM, ResidentCaches, Span, can_be_resident
from greenroom.runtime.spec import CacheSpec, LayerSpec

LAYER = LayerSpec(kind="full", heads=2, k_dim=8, v_dim=8, dtype="float32")
SPEC = CacheSpec(layers=(LAYER, LAYER), context_window=2048)


@pytest.fixture(params=[0, 2], ids=["alone", "pool"])
def pool(request: pytest.FixtureRequest) -> Iterator[Executor | None]:
    """Who shares the work, if anybody does."""
    if not request.param:
        yield None
        return
    with ThreadPoolExecutor(request.param) as threads:
        yield threads


def caches(rows: int) -> list[Any]:
    made: list[Any] = [KVCache(), KVCache()]
    for number, cache in enumerate(made):
        keys = mx.random.normal((1, 2, rows, 8), key=mx.random.key(number))
        cache.update_and_fetch(keys, keys + 1)
    return made


def test_the_oldest_makes_room_and_a_copy_is_taken_once() -> None:
    size = nbytes(caches(256))
    resident = ResidentCaches(SPEC, 2 * size)
    for handle in (1, 2, 3):
        resident.put(handle, caches(256), 256, ())
    assert resident.num_bytes == 2 * size
    assert resident.take(1) is None
    assert resident.take(3) is not None
    assert resident.take(3) is None
    assert resident.take(None) is None
    assert resident.num_bytes == size
    resident.shrink(size - 1)
    assert resident.take(2) is None
    assert resident.num_bytes == 0


def test_a_smaller_limit_lets_go_of_the_oldest_and_holds_for_later_copies() -> None:
    size = nbytes(caches(256))
    resident = ResidentCaches(SPEC, 3 * size)
    for handle in (1, 2, 3):
        resident.put(handle, caches(256), 256, ())
    resident.limit(2 * size)
    assert resident.num_bytes == 2 * size
    resident.put(4, caches(256), 256, ())
    assert [resident.take(handle) is not None for handle in (1, 2, 3, 4)] == [
        False,
        False,
        True,
        True,
    ]


def test_only_layers_that_attend_to_everything_can_be_put_together() -> None:
    assert can_be_resident(caches(3))
    assert not can_be_resident([KVCache(), RotatingKVCache(max_size=8)])
    assert not can_be_resident([])


@pytest.mark.parametrize("route", [True, False], ids=["host", "device"])
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "as the turn left it"])
def test_a_copy_is_the_rows_before_then_the_decoded_ones(
    settled: bool, route: bool, pool: Executor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("restore", "encoding"):
        monkeypatch.setattr(f"greenroom.runtime.{module}.host_route", lambda: route)
    live = caches(300)
    before = [mx.array(c.keys[..., :290, :]) for c in live]
    payload = encode(codec_named("q4"), SPEC, slice_states(live, 285, 295))
    decoded = decode(SPEC, payload)
    resident = ResidentCaches(SPEC, 1 << 30, pool)
    resident.put(1, live, 290, [Span(payload, 5, 5), Span(payload, 0, 10)])
    if settled:
        assert resident.unsettled
        resident.settle()
        assert not resident.unsettled
        assert resident.num_bytes == nbytes(live)
    made: list[Any] = resident.take(1) or []
    assert len(made) == len(live)
    for layer, (old, cache) in enumerate(zip(before, made, strict=True)):
        keys, values = decoded.rows(layer)
        assert cache.offset == 305
        assert mx.array_equal(cache.keys[..., :290, :], old)
        assert mx.array_equal(cache.keys[..., 290:295, :], keys[..., 5:, :])
        assert mx.array_equal(cache.keys[..., 295:305, :], keys)
        assert mx.array_equal(cache.values[..., 295:305, :], values)


def test_a_settled_copy_has_room_for_a_question_and_an_answer() -> None:
    resident = ResidentCaches(SPEC, 1 << 30)
    live = caches(250)
    payload = encode(codec_named("float"), SPEC, slice_states(live, 240, 250))
    resident.put(1, live, 240, [Span(payload, 0, 10)])
    resident.settle()
    made: list[Any] = resident.take(1) or []
    assert len(made) == len(live)
    room = made[0].keys.shape[2]
    more = mx.zeros((1, 2, HEADROOM, 8))
    made[0].update_and_fetch(more, more)
    assert made[0].keys.shape[2] == room, "no reallocation"


def test_a_long_conversation_is_copied_ever_more_rarely() -> None:
    resident = ResidentCaches(SPEC, 1 << 30)
    live: list[Any] = caches(40)
    sizes = [live[0].keys.shape[2]]
    for turn in range(200):
        start = 40 * turn
        payload = encode(codec_named("float"), SPEC, slice_states(live, start, start + 40))
        resident.put(turn, live, start, [Span(payload, 0, 40)])
        resident.settle()
        live = list(resident.take(turn) or [])
        more = mx.zeros((1, 2, 40, 8))
        for cache in live:
            cache.update_and_fetch(more, more)
        sizes.append(live[0].keys.shape[2])
    copied = [old for old, new in itertools.pairwise(sizes) if new != old]
    assert live[0].offset == 8040
    assert sum(copied) < 8 * 8040, "rows copied, all in all"
    assert max(sizes) < 8040 * 1.25 + 2 * HEADROOM
