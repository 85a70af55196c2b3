"""What each architecture of mlx-lm wants in a tiny config.json, beyond what all know.

The list of architectures comes from the installed package; one that is not named here is built
from ``COMMON`` alone.
"""

import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Any

import mlx_lm.models

from tests.peculiarities import EXTRA
from tests.zoo import CONFIGS, SIZES

COMMON: Mapping[str, Any] = {
    **SIZES,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "layernorm_epsilon": 1e-5,
    "norm_eps": 1e-5,
    "norm_epsilon": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_qkv_bias": False,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "n_routed_experts": 4,
    "shared_expert_intermediate_size": 32,
    "shared_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "partial_rotary_factor": 0.5,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_head_dim": 32,
    "index_n_heads": 2,
    "index_topk": 64,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_ctx": 2048,
    "n_positions": 2048,
    "n_inner": 96,
    "num_layers": 2,
    "layer_group_size": 2,
    "group_norm_size": 1,
    "conv_bias": False,
    "conv_L_cache": 3,
    "conv_kernel": 4,
    "state_size": 8,
    "ssm_state_size": 8,
    "use_conv_bias": True,
    "time_step_rank": 4,
    "n_groups": 1,
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "logits_scaling": 1.0,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "use_qk_norm": True,
    "hidden_act": "silu",
}
_TEXT: Mapping[str, str] = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "kimi_k25": "deepseek_v3",
    "kimi_vl": "deepseek_v3",
    "lfm2-vl": "lfm2",
    "llama4": "llama4_text",
    "mistral3": "llama",
    "pixtral": "llama",
    "qwen2_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
}
"""Wrappers around a text model of another name, which stands in ``text_config``."""


def architectures() -> list[str]:
    """Every module of ``mlx_lm.models`` that defines a model, by its source alone."""
    found = []
    for each in pkgutil.iter_modules(mlx_lm.models.__path__):
        spec = importlib.util.find_spec(f"mlx_lm.models.{each.name}")
        assert spec is not None
        assert spec.loader is not None
        source = spec.loader.get_source(spec.name)  # type: ignore[attr-defined]
        if "\nclass Model(" in source or "\nclass ModelArgs" in source:
            found.append(each.name)
    return found


def config_of(name: str) -> dict[str, Any]:
    """A tiny config.json for the architecture ``name``."""
    own = {**COMMON, **(EXTRA.get(name) or CONFIGS.get(name) or {})}
    inner = _TEXT.get(name, name)
    text = {**COMMON, **(EXTRA.get(inner) or CONFIGS.get(inner) or {}), "model_type": inner}
    return {**own, "text_config": text, "vision_config": {"model_type": inner}}
