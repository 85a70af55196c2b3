"""The spec comes from the model itself, and what cannot be kept is refused by name."""

from typing import Any

import pytest
from mlx_lm.models import gemma3_text, mamba2
from mlx_lm.models.cache import KVCache
from mlx_lm.models.llama import ModelArgs

from greenroom.runtime.codec import MLX_DTYPES
from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.spec import CacheSpec, DTypeName, LayerSpec, extract_spec
from tests.test_cache import tiny_llama


def test_a_sliding_window_is_refused_by_layer_and_class() -> None:
    args = gemma3_text.ModelArgs(
        model_type="gemma3_text",
        hidden_size=32,
        num_hidden_layers=3,
        intermediate_size=32,
        num_attention_heads=2,
        head_dim=16,
        vocab_size=64,
        num_key_value_heads=1,
        sliding_window=8,
        sliding_window_pattern=2,
    )
    with pytest.raises(ModelUnavailable, match=r"layer 0 .* RotatingKVCache"):
        extract_spec(gemma3_text.Model(args))


def test_recurrent_state_is_refused_by_layer_and_class() -> None:
    sizes: dict[str, Any] = {
        "model_type": "mamba2",
        "num_heads": 4,
        "head_dim": 16,
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 64,
        "state_size": 8,
        "num_hidden_layers": 1,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "tie_word_embeddings": True,
        "time_step_limit": (0.0, 1.0),
        "time_step_rank": "auto",
    }
    with pytest.raises(ModelUnavailable, match=r"layer 0 .* ArraysCache"):
        extract_spec(mamba2.Model(mamba2.ModelArgs(**sizes)))


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
