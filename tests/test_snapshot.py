"""Snapshots: the newest rows of a rotating cache in order, whatever its cache does afterwards."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from greenroom.runtime.cache import slice_states
from greenroom.runtime.snapshot import Rows, take

WINDOW = 6


def feed(cache: RotatingKVCache, start: int, count: int) -> None:
    """Rows whose every element is their position."""
    rows = mx.arange(start, start + count, dtype=mx.float32).reshape(1, 1, count, 1)
    mx.eval(cache.update_and_fetch(rows, 10 * rows))


def positions(rows: Rows, start: int, stop: int) -> list[int]:
    keys, values = rows.cut(start, stop)
    assert mx.array_equal(10 * keys, values).item()
    return [int(x) for x in np.array(keys).reshape(-1)]


@settings(max_examples=60)
@given(st.lists(st.sampled_from([1, 1, 1, 2, 5, 9]), min_size=1, max_size=14))
def test_rows_are_in_order_and_stay_as_they_were(chunks: list[int]) -> None:
    cache = RotatingKVCache(WINDOW)
    taken = []
    at = 0
    for chunk in chunks:
        feed(cache, at, chunk)
        at += chunk
        taken.append(take([cache], at))
    for snapshot in taken:
        (rows,) = snapshot.layers
        assert isinstance(rows, Rows)
        end = snapshot.position
        assert positions(rows, max(0, end - WINDOW), end) == [*range(max(0, end - WINDOW), end)]


def test_rows_that_are_gone_are_left_out() -> None:
    rows = Rows(5, *(mx.arange(5.0, 9.0).reshape(1, 1, 4, 1) * n for n in (1, 10)))
    assert positions(rows, 0, 7) == [5, 6]
    assert positions(rows, 6, 9) == [6, 7, 8]
    assert positions(rows, 0, 3) == []


def test_segments_take_each_kind_from_where_it_still_is() -> None:
    window, full, state = RotatingKVCache(WINDOW), KVCache(), ArraysCache(1)
    caches = [window, CacheList(full, state)]
    snapshots = []
    for start, stop in ((0, 9), (9, 10), (10, 30)):
        feed(window, start, stop - start)
        full.update_and_fetch(mx.zeros((1, 1, stop - start, 2)), mx.zeros((1, 1, stop - start, 2)))
        state[0] = mx.full((1, 3), stop)
        snapshots.append(take(caches, stop))
    cut = slice_states(caches, 2, 10, snapshots)
    assert cut.num_tokens == 8
    assert np.array(cut.rows(0)[0]).reshape(-1).tolist() == [4, 5, 6, 7, 8, 9]
    assert cut.rows(1)[0].shape == (1, 1, 8, 2)
    kept = cut.layers[2]
    assert not isinstance(kept, tuple)
    assert {early: each[0].tolist() for early, each in kept.items()} == {
        0: [[10, 10, 10]],
        1: [[9, 9, 9]],
    }
    with pytest.raises(TypeError, match="keeps states"):
        cut.rows(2)
    # Nothing was taken at 12: of the window only what is left, of the state nothing.
    late = slice_states(caches, 10, 26, snapshots)
    assert np.array(late.rows(0)[0]).reshape(-1).tolist() == [20, 21, 22, 23, 24, 25]
    assert late.layers[2] == {}


def test_a_window_without_a_token_has_no_rows() -> None:
    with pytest.raises(ValueError, match="without a token"):
        take([RotatingKVCache(4)], 0)
