"""Windows and states at rest: what is stored, what it takes, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from greenroom.runtime.cache import resume_position
from greenroom.runtime.codec import CODECS, DEFAULT_CODEC, BadPayload, Payload, check, link
from greenroom.runtime.encoding import SegmentState, decode, encode
from greenroom.runtime.spec import ArraySpec, CacheSpec, LayerSpec, StateSpec

WINDOW = LayerSpec("window", 2, 64, 16, "bfloat16", 8)
KEYS_ONLY = LayerSpec("full", 1, 32, 0, "float32")
STATE = StateSpec((ArraySpec((3, 5), "bfloat16"), ArraySpec((7,), "int64")))
SPEC = CacheSpec((WINDOW, STATE, KEYS_ONLY, WINDOW), 64)


def window_state(rows: int, seed: int) -> tuple[mx.array, mx.array]:
    mx.random.seed(seed)
    keys, values = (mx.random.normal((1, 2, rows, dim)) for dim in (64, 16))
    return keys.astype(mx.bfloat16), values.astype(mx.bfloat16)


def state_of(num_tokens: int, rows: int, kept: tuple[int, ...] = (0, 1)) -> SegmentState:
    states = {
        early: (mx.full((1, 3, 5), early + 0.5, mx.bfloat16), mx.full((1, 7), early, mx.int64))
        for early in kept
    }
    keys = mx.random.normal((1, 1, num_tokens, 32)), mx.zeros((1, 1, num_tokens, 0))
    return SegmentState(num_tokens, [window_state(rows, 1), states, keys, window_state(rows, 2)])


@pytest.mark.parametrize("route", [True, False], ids=["host", "device"])
@pytest.mark.parametrize("codec", CODECS)
def test_every_kind_comes_back(codec: str, route: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenroom.runtime.encoding.host_route", lambda: route)
    state = state_of(20, 8)
    payload = encode(CODECS[codec], SPEC, state)
    found = decode(SPEC, payload)
    again = decode(SPEC, payload)
    for layer in (0, 2, 3):
        for mine, theirs, twice in zip(
            state.rows(layer), found.rows(layer), again.rows(layer), strict=True
        ):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
            assert mx.array_equal(theirs, twice).item()
            if codec == "float":
                assert mx.array_equal(mine, theirs).item()
    kept, wanted = found.layers[1], state.layers[1]
    assert not isinstance(kept, tuple)
    assert not isinstance(wanted, tuple)
    assert kept.keys() == wanted.keys()
    for early, arrays in wanted.items():
        for one, two in zip(arrays, kept[early], strict=True):
            assert one.dtype == two.dtype
            assert mx.array_equal(one, two).item()
    assert link(SPEC, payload, 15).tails == {8: 8}
    assert link(SPEC, payload, 15).states == (19, 20)


@pytest.mark.parametrize("rows", [1, 20, 63, 130, 700])
@pytest.mark.parametrize("codec", CODECS)
def test_layers_together_and_on_threads_give_the_same_bytes(codec: str, rows: int) -> None:
    cell = LayerSpec(kind="full", heads=3, k_dim=64, v_dim=32, dtype="float32")
    spec = CacheSpec(layers=(cell,) * 5, context_window=1024)
    noise = [mx.random.normal((1, 3, rows, 96), key=mx.random.key(n)) for n in range(5)]
    layers = [(each[..., :64], each[..., 64:]) for each in noise]
    whole = encode(CODECS[codec], spec, SegmentState(rows, layers))
    with ThreadPoolExecutor(2) as pool:
        shared = encode(CODECS[codec], spec, SegmentState(rows, layers), pool)
    one = CacheSpec(layers=(cell,), context_window=1024)
    alone = [encode(CODECS[codec], one, SegmentState(rows, [layer])) for layer in layers]
    assert whole.arrays.keys() == shared.arrays.keys() == alone[0].arrays.keys()
    for name, array in whole.arrays.items():
        assert np.array_equal(array, shared.arrays[name])
        assert np.array_equal(array, np.concatenate([each.arrays[name] for each in alone]))


def test_a_window_that_has_moved_past_a_segment_leaves_nothing() -> None:
    payload = encode(CODECS[DEFAULT_CODEC], SPEC, state_of(20, 0, ()))
    check(SPEC, payload)
    assert all(name.startswith("2.") for name in payload.arrays)
    assert link(SPEC, payload, 20).tails == {8: 0}
    assert resume_position(SPEC, [(payload, 20)], 20) == 0


def test_a_state_without_its_final_shape_is_not_kept() -> None:
    state = state_of(20, 8, (0,))
    young = {0: (mx.zeros((1, 2, 5), mx.bfloat16), mx.zeros((1, 7), mx.int64))}
    payload = encode(
        CODECS["float"], SPEC, SegmentState(20, [*state.layers[:1], young, *state.layers[2:]])
    )
    assert link(SPEC, payload, 20).states == ()


def test_payloads_that_do_not_fit_are_refused() -> None:
    payload = encode(CODECS["q8"], SPEC, state_of(20, 8))
    arrays: dict[str, Any] = dict(payload.arrays)
    longer = {name.replace("last8", "last9"): array for name, array in arrays.items()}
    lacking = {name: array for name, array in arrays.items() if name != "1.early1.1"}
    wide = {**arrays, "1.early0.0": arrays["1.early0.0"].astype(np.float32)}
    strange = {**arrays, "1.early20.0": arrays["1.early0.0"]}
    for changed, name in (
        (longer, "0.last9"),
        (lacking, "1.early1.1"),
        (wide, "1.early0.0"),
        (strange, "1.early20.0"),
    ):
        with pytest.raises(BadPayload) as caught:
            decode(SPEC, Payload(payload.codec, 20, changed))
        assert caught.value.array == name


def gemma_3_12b() -> CacheSpec:
    """The shapes of Gemma 3 12B's caches: a full layer in six, windows of 1024 in the others."""
    full = LayerSpec("full", 8, 256, 256, "bfloat16")
    window = LayerSpec("window", 8, 256, 256, "bfloat16", 1024)
    return CacheSpec((*(window,) * 5, full) * 8, 131072)


def test_a_window_is_stored_once_however_long_the_context() -> None:
    """One layer of each kind is encoded, and scaled by how many there are."""
    spec = gemma_3_12b()
    assert len(spec.layers) == 48
    assert (len(spec.attention("window")), len(spec.attention("full"))) == (40, 8)
    small = CacheSpec((spec.layers[0], spec.layers[5]), 131072)
    rows = [mx.random.normal((1, 8, n, 256)).astype(mx.bfloat16) for n in (1024, 4096)]
    payload = encode(CODECS[DEFAULT_CODEC], small, SegmentState(4096, [(r, r) for r in rows]))
    sizes = {"0": 0, "1": 0}
    for name, array in payload.arrays.items():
        sizes[name[0]] += array.nbytes
    at_32k = 40 * sizes["0"] + 8 * sizes["1"] * 32768 // 4096
    assert at_32k == 853_540_864
    # The reference system keeps every token of all 48 layers, in 4.5 bits an element.
    reference = 48 * 32768 * spec.attention("full")[0].elements * 9 // 16
    assert at_32k <= reference / 4
