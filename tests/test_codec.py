"""Codecs over any shape and type: bounded error, one segment at a time, the same on both routes."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime import quantize_mlx
from greenroom.runtime.codec import (
    CODECS,
    DEFAULT_CODEC,
    BadPayload,
    Codec,
    Payload,
    check,
    codec_labelled,
    codec_named,
)
from greenroom.runtime.encoding import (
    KVState,
    SegmentState,
    decode,
    decode_rows,
    decode_rows_into,
    encode,
)
from greenroom.runtime.errors import SettingsError
from greenroom.runtime.host import MLX_DTYPES, host_dtype
from greenroom.runtime.quantize import (
    TensorFormat,
    dequantize_into,
    group_shape,
    part_shapes,
    quantize,
    rotation,
)
from greenroom.runtime.spec import CacheSpec, DTypeName, LayerSpec

dims = st.sampled_from([1, 8, 16, 32, 64, 67, 80, 96, 128, 192])
rows = st.sampled_from([1, 2, 3, 7, 8, 63, 64, 65, 130, 511, 513, 700])
formats = st.builds(
    TensorFormat,
    st.sampled_from([4, 5, 6, 8]),
    st.sampled_from(["token", "channel"]),
    st.booleans(),
    st.booleans(),
)
codecs = st.sampled_from(list(CODECS.values()))


def noise(seed: int, *shape: int) -> Any:
    """Normal noise with a few channels that are always large, as keys have them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    x[..., :: max(1, shape[-1] // 3)] += 12 * rng.standard_normal()
    return x


def states_of(spec: CacheSpec, num_tokens: int, seed: int) -> SegmentState:
    made = []
    for index, layer in enumerate(spec.attention("full")):
        k = noise(seed + 2 * index, 1, layer.heads, num_tokens, layer.k_dim)
        v = noise(seed + 2 * index + 1, 1, layer.heads, num_tokens, layer.v_dim)
        dtype = MLX_DTYPES[layer.dtype]
        made.append((mx.array(k).astype(dtype), mx.array(v).astype(dtype)))
    return SegmentState(num_tokens, made)


def rows_of(state: SegmentState) -> list[KVState]:
    return [state.rows(i) for i in range(len(state.layers))]


def same(one: mx.array, two: mx.array) -> bool:
    return one.dtype == two.dtype and one.shape == two.shape and bool(mx.array_equal(one, two))


specs = st.builds(
    lambda layers: CacheSpec(tuple(layers), 64),
    st.lists(
        st.builds(
            LayerSpec,
            st.just("full"),
            st.integers(1, 3),
            dims,
            dims,
            st.sampled_from(["float32", "float16", "bfloat16"]),
        ),
        min_size=1,
        max_size=3,
    ),
)


@settings(max_examples=60)
@given(formats, st.integers(1, 3), rows, dims, st.integers(0, 99))
def test_error_is_within_half_a_step(
    fmt: TensorFormat, heads: int, num_rows: int, dim: int, seed: int
) -> None:
    x = noise(seed, heads, num_rows, dim)
    q = quantize(x, fmt)
    out = np.empty_like(x)
    dequantize_into(q, fmt, out)
    turned = x if not fmt.rotated else x @ rotation(dim)
    # Anchoring moves the scale, so that the edge nearer to zero may be clipped by one step; the
    # rounding of scale and bias to float16 adds a little; turning back mixes a head's errors.
    steps = (1.5 if fmt.anchored else 0.5) * (np.sqrt(dim) if fmt.rotated else 1)
    span = np.ptp(turned) / (2**fmt.bits - 1)
    assert np.abs(out - x).max() <= steps * span + 2**-9 * np.abs(turned).max()


@settings(max_examples=60)
@given(formats, st.integers(1, 2), rows, dims, st.data())
def test_fewer_rows_are_the_same_bits(
    fmt: TensorFormat, heads: int, num_rows: int, dim: int, data: st.DataObject
) -> None:
    used = data.draw(st.integers(1, num_rows))
    q = quantize(noise(1, heads, num_rows, dim), fmt)
    whole = np.empty((heads, num_rows, dim), np.float32)
    part = np.empty((heads, used, dim), np.float32)
    dequantize_into(q, fmt, whole)
    dequantize_into(q, fmt, part)
    assert np.array_equal(whole[:, :used], part)


@settings(max_examples=40)
@given(st.sampled_from(sorted(CODECS)), st.integers(1, 3), rows, st.data())
def test_layers_at_once_are_the_same_bits(
    codec: str, heads: int, num_rows: int, data: st.DataObject
) -> None:
    """Whichever of a group's layers are decoded together, and from wherever on."""
    cell = LayerSpec("full", heads, 64, 67, data.draw(st.sampled_from(list(MLX_DTYPES))))
    spec = CacheSpec((cell,) * 5, 1024)
    payload = encode(CODECS[codec], spec, states_of(spec, num_rows, 3))
    first = data.draw(st.integers(0, 4))
    layers = data.draw(st.integers(1, 5 - first))
    start = data.draw(st.integers(0, num_rows - 1))
    stop = data.draw(st.integers(start + 1, num_rows))

    def decoded(layer: int, count: int, from_row: int) -> Any:
        outs = np.zeros((count, heads, stop - from_row, 67), host_dtype(cell.dtype))
        decode_rows_into(payload, 0, cell, "v", list(outs), layer, from_row)
        return outs

    alone = [decoded(layer, 1, 0)[0, :, start:] for layer in range(first, first + layers)]
    assert np.array_equal(decoded(first, layers, start), np.stack(alone))


@settings(max_examples=40)
@given(formats, st.integers(1, 2), rows, dims, st.sampled_from(["float32", "float16", "bfloat16"]))
def test_both_routes_read_and_write_the_same_bytes(
    fmt: TensorFormat, heads: int, num_rows: int, dim: int, dtype: DTypeName
) -> None:
    x = mx.array(noise(2, heads, num_rows, dim)).astype(MLX_DTYPES[dtype])
    on_host = quantize(np.array(x.astype(mx.float32)), fmt)
    on_device = quantize_mlx.quantize(x, fmt)
    if not fmt.rotated:
        for one, two in zip(on_host.planes, on_device.planes, strict=True):
            assert np.array_equal(one, two)
        assert np.array_equal(on_host.scale, on_device.scale)
        assert np.array_equal(on_host.bias, on_device.bias)
    out = np.empty((heads, num_rows, dim), np.float32)
    dequantize_into(on_host, fmt, out)
    again = np.array(quantize_mlx.dequantize(on_host, fmt, num_rows, dim, mx.float32))
    # A rotation is a matrix product, which two BLAS libraries round differently.
    assert np.allclose(again, out, atol=1e-4 if fmt.rotated else 0, rtol=0)


@given(formats, st.integers(1, 3), rows, dims)
@settings(max_examples=30)
def test_arrays_have_the_promised_shapes(
    fmt: TensorFormat, heads: int, num_rows: int, dim: int
) -> None:
    q = quantize(noise(3, heads, num_rows, dim), fmt)
    shapes = part_shapes(fmt, heads, num_rows, dim)
    found: dict[str, Any] = {f"plane{i}": plane for i, plane in enumerate(q.planes)}
    found |= {"scale": q.scale, "bias": q.bias}
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == shapes


@pytest.mark.parametrize("value", [0.0, 1e-9, -3.5, 60000.0])
@pytest.mark.parametrize("bits", [4, 8])
def test_constant_tensors_come_back(value: float, bits: Any) -> None:
    x = np.full((1, 5, 64), value, np.float32)
    for anchored in (False, True):
        out = np.empty_like(x)
        fmt = TensorFormat(bits, anchored=anchored)
        dequantize_into(quantize(x, fmt), fmt, out)
        assert np.allclose(out, x, rtol=1e-3, atol=1e-6)


def test_anchored_is_the_rule_of_mx_quantize() -> None:
    x = noise(4, 1, 40, 128)
    fmt = TensorFormat(4, anchored=True)
    out = np.empty_like(x)
    dequantize_into(quantize(x, fmt), fmt, out)
    packed, scales, biases = mx.quantize(mx.array(x[0]), group_size=64, bits=4)
    theirs = mx.dequantize(packed, scales, biases, group_size=64, bits=4)
    # Theirs keeps float32 scales here, ours float16: equal but for codes at a rounding edge.
    close = np.isclose(out[0], np.array(theirs), atol=2**-9 * np.abs(x).max())
    assert close.mean() > 0.99


@pytest.mark.parametrize("dim", [1, 16, 80, 96, 128])
def test_rotation_is_its_own_inverse(dim: int) -> None:
    matrix = rotation(dim)
    assert np.allclose(matrix @ matrix, np.eye(dim), atol=1e-6)


@pytest.mark.parametrize(
    ("dim", "shape"), [(16, (1, 16)), (64, (1, 64)), (80, (2, 40)), (67, (2, 34)), (192, (3, 64))]
)
def test_groups_cover_any_head_size(dim: int, shape: tuple[int, int]) -> None:
    assert group_shape(dim) == shape


@settings(max_examples=40)
@given(codecs, specs, st.integers(1, 70), st.integers(0, 99))
def test_a_segment_decodes_to_the_models_own_types(
    codec: Codec, spec: CacheSpec, num_tokens: int, seed: int
) -> None:
    states = states_of(spec, num_tokens, seed)
    payload = encode(codec, spec, states)
    assert payload.num_tokens == num_tokens
    assert payload.codec == codec.label
    decoded = decode(spec, payload)
    for (k, v), (k2, v2) in zip(rows_of(states), rows_of(decoded), strict=True):
        assert (k.shape, k.dtype, v.shape, v.dtype) == (k2.shape, k2.dtype, v2.shape, v2.dtype)
        if codec.name == "float":
            assert same(k, k2)
            assert same(v, v2)
    for (k, v), (k2, v2) in zip(rows_of(decoded), rows_of(decode(spec, payload)), strict=True):
        assert same(k, k2)
        assert same(v, v2)


@pytest.mark.parametrize("name", CODECS)
def test_bfloat16_rounds_as_mlx_does(name: str) -> None:
    layer = LayerSpec("full", 2, 64, 80, "bfloat16")
    spec = CacheSpec((layer,), 64)
    single = CacheSpec((LayerSpec("full", 2, 64, 80, "float32"),), 64)
    payload = encode(CODECS[name], spec, states_of(spec, 33, 7))
    if name != "float":
        wide = decode(single, payload).rows(0)[0].astype(mx.bfloat16)
        assert same(decode(spec, payload).rows(0)[0], wide)


def test_slices_of_a_larger_cache_are_encoded_like_copies() -> None:
    spec = CacheSpec((LayerSpec("full", 3, 64, 64, "float32"),), 64)
    k, v = states_of(spec, 100, 5).rows(0)
    cut = [(k[..., 20:90, :], v[..., 20:90, :])]
    copy = [(mx.contiguous(k[..., 20:90, :]), mx.contiguous(v[..., 20:90, :]))]
    one, two = (encode(CODECS[DEFAULT_CODEC], spec, SegmentState(70, each)) for each in (cut, copy))
    assert one.arrays.keys() == two.arrays.keys()
    assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)


def test_bits_per_element() -> None:
    spec = CacheSpec((LayerSpec("full", 3, 64, 64, "float32"),) * 2, 64)
    wanted = {"float": 32, "q8": 8.5, "q4": 4.5, "k8v4": 6.5, "k6v5": 6.0, "k5cv5": 5.5}
    wanted["k5v4r"] = 5.0
    assert wanted.keys() == CODECS.keys()
    for name, bits in wanted.items():
        payload = encode(CODECS[name], spec, states_of(spec, 64, 1))
        assert 8 * payload.num_bytes / 64 / spec.elements_per_token == bits


def test_the_device_route_gives_the_same_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = LayerSpec("full", 2, 80, 64, "bfloat16")
    spec = CacheSpec((cell, cell, cell), 64)
    payload = encode(CODECS["k8v4"], spec, states_of(spec, 50, 6))
    host = decode_rows(payload, 0, cell, 3, "k", 31, 4)
    monkeypatch.setattr("greenroom.runtime.encoding.host_route", lambda: False)
    made = decode_rows(payload, 0, cell, 3, "k", 31, 4)
    assert all(same(one, other) for one, other in zip(made, host, strict=True))
    again = encode(CODECS["k8v4"], spec, states_of(spec, 50, 6))
    assert all(np.array_equal(again.arrays[name], payload.arrays[name]) for name in again.arrays)


def test_the_table_is_closed() -> None:
    assert all(codec_labelled(codec.label) is codec for codec in CODECS.values())
    assert codec_labelled("k8v4/99") is None
    assert codec_named(DEFAULT_CODEC).name == DEFAULT_CODEC
    with pytest.raises(SettingsError, match="k8v4"):
        codec_named("zip")


def test_payloads_that_do_not_fit_are_refused() -> None:
    spec = CacheSpec((LayerSpec("full", 2, 64, 64, "float32"),), 64)
    payload = encode(CODECS["k8v4"], spec, states_of(spec, 10, 6))
    check(spec, payload)
    arrays = dict(payload.arrays)
    scale = arrays["0.k.scale"]
    misfits: list[tuple[str, dict[str, Any]]] = [
        ("0.k.scale", {**arrays, "0.k.scale": scale[:, :1]}),
        ("0.k.scale", {**arrays, "0.k.scale": scale.astype(np.float32)}),
        ("0.k.scale", {name: a for name, a in arrays.items() if name != "0.k.scale"}),
        ("zzz", {**arrays, "zzz": scale}),
    ]
    for name, changed in misfits:
        with pytest.raises(BadPayload) as caught:
            decode(spec, Payload(payload.codec, 10, changed))
        assert caught.value.array == name
    with pytest.raises(BadPayload):
        decode(spec, Payload("zip/1", 10, arrays))
