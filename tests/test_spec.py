"""The spec comes from the model itself, and what cannot be kept is refused by name."""

from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx_lm.models.cache import CacheList, ChunkedKVCache, KVCache, RotatingKVCache
from mlx_lm.models.llama import ModelArgs

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.host import MLX_DTYPES
from greenroom.runtime.spec import (
    ArraySpec,
    CacheSpec,
    DTypeName,
    LayerSpec,
    StateSpec,
    cells,
    extract_spec,
)
from tests.test_cache import tiny_llama
from tests.zoo import build


def test_each_kind_of_layer_is_told_from_the_model() -> None:
    window = LayerSpec("window", 2, 16, 16, "float32", 8)
    full = LayerSpec("full", 2, 16, 16, "float32")
    gemma = extract_spec(build("gemma3_text"))
    assert gemma == CacheSpec((window, full), 2048)
    assert (gemma.windows, gemma.stateful, gemma.forgetful) == ((8,), False, True)
    assert gemma.float_bytes_per_token == 4 * 64
    assert gemma.float_bytes_fixed == 4 * 64 * 8
    mamba = extract_spec(build("mamba2"))
    state = StateSpec((ArraySpec((3, 144), "float32"), ArraySpec((4, 32, 8), "float32")))
    assert mamba == CacheSpec((state, state), 2048)
    assert (mamba.windows, mamba.stateful, mamba.forgetful) == ((), True, True)
    assert mamba.float_bytes_per_token == 0
    assert mamba.float_bytes_fixed == 2 * 4 * (3 * 144 + 4 * 32 * 8)
    assert [type(c) for c in extract_spec(build("qwen3_next")).layers] == [StateSpec, LayerSpec]


def test_lists_of_caches_are_laid_flat() -> None:
    model = tiny_llama()
    twice: list[Any] = [KVCache(), CacheList(KVCache(), KVCache())]
    model.make_cache = lambda: twice
    with pytest.raises(ModelUnavailable, match="unused") as caught:
        extract_spec(Ignorant(model))
    assert "layer 0" in str(caught.value)
    assert cells(twice) == [twice[0], *twice[1].caches]


class Ignorant(nn.Module):
    """A model that leaves its caches as they are."""

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.make_cache = model.make_cache

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        return mx.zeros((*tokens.shape, 5))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ChunkedKVCache(8), "layer 1 .* ChunkedKVCache"),
        (lambda: RotatingKVCache(8, keep=2), "layer 1 .* first 2 tokens"),
        (lambda: CacheList(KVCache(), ChunkedKVCache(8)), r"layer 1 \(cache 1 .* ChunkedKVCache"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_layer_and_class(make: Any, says: str) -> None:
    model = tiny_llama()
    model.make_cache = lambda: [KVCache(), make()]
    with pytest.raises(ModelUnavailable, match=says):
        extract_spec(model)


class LargerKVCache(KVCache):
    """A cache that keeps more than its parent, as far as anybody knows."""


def test_a_subclass_of_a_known_cache_is_unknown() -> None:
    model = tiny_llama()
    larger: Any = LargerKVCache
    model.make_cache = lambda: [KVCache(), larger()]
    with pytest.raises(ModelUnavailable, match=r"layer 1 .* LargerKVCache"):
        extract_spec(model)


@pytest.mark.parametrize("dtype", MLX_DTYPES)
def test_the_dtype_is_the_models_own(dtype: DTypeName) -> None:
    model = tiny_llama()
    model.set_dtype(MLX_DTYPES[dtype])
    assert extract_spec(model).layers[0] == LayerSpec("full", 2, 80, 80, dtype)


def test_the_context_window_may_come_from_the_config() -> None:
    model = tiny_llama()
    assert isinstance(model.args, ModelArgs)
    model.args.max_position_embeddings = None
    assert extract_spec(model, {"max_position_embeddings": 99}).context_window == 99
    nested = {"text_config": {"max_position_embeddings": 98}}
    assert extract_spec(model, nested).context_window == 98
    with pytest.raises(ModelUnavailable, match="context window"):
        extract_spec(model)


def test_layers_are_grouped_by_shape() -> None:
    wide, narrow = (LayerSpec("full", 1, dim, 8, "float16") for dim in (16, 8))
    spec = CacheSpec((wide, narrow, wide, wide), 64)
    assert spec.groups() == ((wide, (0, 2, 3)), (narrow, (1,)))
    assert [spec.place(i) for i in range(4)] == [(0, 0), (1, 0), (0, 1), (0, 2)]
    assert spec.elements_per_token == 3 * 24 + 16
    assert spec.float_bytes_per_token == 2 * spec.elements_per_token
