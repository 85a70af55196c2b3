"""The output head: the last position's logits, and what stands for them."""

import importlib
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.head import LastPosition, OutputHead, kept, last_position_head
from greenroom.runtime.head import LastPositionEmbedding as Embedding
from greenroom.runtime.lanes import Lanes
from tests.tiny import prompt

_COMMON = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 97,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
}
_MODELS: dict[str, dict[str, Any]] = {
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-untied": {"model_type": "llama", "tie_word_embeddings": False},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "gemma3_text-tied": {
        "model_type": "gemma3_text",
        "sliding_window": 16,
        "sliding_window_pattern": 2,
        "tie": True,
    },
    "gemma3_text": {"model_type": "gemma3_text", "sliding_window": 16, "sliding_window_pattern": 2},
    "deepseek_v2": {
        "model_type": "deepseek_v2",
        "num_key_value_heads": 4,
        "q_lora_rank": None,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": None,
        "n_shared_experts": None,
        "num_experts_per_tok": None,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 8,
        "rope_scaling": {
            "type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 256,
            "mscale": 0.7,
            "mscale_all_dim": 0.7,
        },
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
    },
}


_CAPPED: dict[str, dict[str, Any]] = {
    "gemma2": {"model_type": "gemma2", "final_logit_softcapping": 30.0},
    "cohere": {"model_type": "cohere", "logit_scale": 0.3},
}


def _model(name: str) -> nn.Module:
    config = {**_COMMON, **(_MODELS | _CAPPED)[name]}
    arch = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    mx.random.seed(7)
    model: nn.Module = arch.Model(arch.ModelArgs.from_dict(config))
    if config.get("tie"):
        model.sanitize({})
    mx.eval(model.parameters())
    return model


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("length", [1, 5, 30])
def test_the_last_position_is_the_same_and_alone(name: str, length: int) -> None:
    mx.set_default_device(mx.cpu)
    tokens = mx.arange(2 * length).reshape(2, length) % 97
    model = _model(name)
    whole = model(tokens, cache=make_prompt_cache(model))
    assert whole.shape == (2, length, 97)
    wrapped = last_position_head(model)
    assert wrapped is model
    last = model(tokens, cache=make_prompt_cache(model))
    assert last.shape == (2, 1, 97)
    # Not bit for bit: a product over one row may add up in another order than one over many.
    assert mx.allclose(last, whole[:, -1:], rtol=1e-5, atol=1e-6)
    assert mx.array_equal(last.argmax(-1), whole[:, -1:].argmax(-1))


def test_wrapping_twice_wraps_once() -> None:
    model = last_position_head(_model("llama-tied"))
    before = [name for name, _ in model.named_modules()]
    assert [name for name, _ in last_position_head(model).named_modules()] == before


def test_a_model_without_a_known_head_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert last_position_head(model)(mx.ones((1, 3, 4))).shape == (1, 3, 4)


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("length", [1, 5, 30])
def test_the_last_hidden_state_stands_for_the_logits(name: str, length: int) -> None:
    """To the bit, and long after: other passes in between change nothing."""
    mx.set_default_device(mx.cpu)
    model = last_position_head(_model(name))
    head = OutputHead(model, Lanes().warm_up(model))
    logits = model(mx.array([prompt(length)]), cache=make_prompt_cache(model))
    hidden = head.taken()
    assert hidden is not None
    row = kept(hidden)
    assert row.shape == (32,)
    mx.eval(model(mx.array([prompt(9, 1)]), cache=make_prompt_cache(model)))
    assert head.fits(row)
    assert mx.array_equal(head.logits(row), logits[:, -1])
    assert not head.fits(row[:-1])
    assert not head.fits(row.astype("float16"))


@pytest.mark.parametrize("name", _CAPPED)
def test_where_more_is_done_to_the_logits_nothing_is_taken(name: str) -> None:
    mx.set_default_device(mx.cpu)
    model = last_position_head(_model(name))
    head = OutputHead(model, Lanes().warm_up(model))
    mx.eval(model(mx.array([prompt(5)]), cache=make_prompt_cache(model)))
    assert head.taken() is None
    heads = [m for _, m in model.named_modules() if isinstance(m, LastPosition | Embedding)]
    assert [head.take_input() for head in heads] == [None] * len(heads), "nothing is held on to"


def test_of_a_model_without_a_known_head_nothing_is_taken() -> None:
    model = _model("llama-untied")  # not wrapped: it answers all positions
    assert OutputHead(model, Lanes().warm_up(model)).taken() is None
