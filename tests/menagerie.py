"""What each architecture of mlx-lm wants in a tiny config.json, beyond what all know.

The list of architectures comes from the installed package; one that is not named here is built
from ``COMMON`` alone.
"""

import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Any

import mlx_lm.models

from tests.zoo import CONFIGS, SIZES, VOCABULARY

_HYBRID = ["sliding_attention", "full_attention"]
_LINEAR = ["linear_attention", "full_attention"]
_ROPE: Mapping[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
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
_FALCON: Mapping[str, Any] = {
    "attention_in_multiplier": 1.0,
    "mamba_d_head": 16,
    "mamba_n_heads": 8,
    "mamba_d_ssm": 128,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
}
_LONGCAT: Mapping[str, Any] = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "ffn_hidden_size": 96,
    "moe_topk": 2,
    "expert_ffn_hidden_size": 32,
    "zero_expert_num": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
}
_KIMI_LINEAR: Mapping[str, Any] = {
    "linear_attn_config": {
        "kda_layers": [1],
        "full_attn_layers": [2],
        "num_heads": 4,
        "head_dim": 32,
        "short_conv_kernel_size": 4,
    },
    "model_max_length": 2048,
    "num_experts_per_token": 2,
    "num_key_value_heads": 4,
}
EXTRA: Mapping[str, Mapping[str, Any]] = {
    "afm7": {"hidden_dim": 64, "num_kv_reuse_layers": 1, "num_heads": 4, "num_kv_heads": 2},
    "afmoe": {"layer_types": _HYBRID, "num_dense_layers": 1},
    "apertus": {"post_norm": False, "qk_norm": True},
    "baichuan_m1": {"sliding_window_layers": [0], "conv_window": 2},
    "bailing_hybrid": {"group_norm_size": 2, "num_key_value_heads": 4},
    "bailing_moe_linear": {"group_norm_size": 2, "num_key_value_heads": 4},
    "cohere2": {"sliding_window_pattern": 2},
    "dbrx": {
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 4,
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
    },
    "ernie4_5_moe": {"moe_num_experts": 4},
    "exaone4": {"rope_scaling": None, "sliding_window_pattern": "LG"},
    "exaone_moe": {"layer_types": _HYBRID, "is_moe_layer": [False, True]},
    "falcon_h1": _FALCON,
    "gear": {"layer_types": ["conv_mixer", *_HYBRID], "num_hidden_layers": 3},
    "gemma3n": {
        "num_hidden_layers": 4,
        "layer_types": [*_HYBRID, *_HYBRID],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "rope_local_base_freq": 10000.0,
        "final_logit_softcapping": 30.0,
        "activation_sparsity_pattern": [0.0] * 4,
        "altup_num_inputs": 2,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 8,
    },
    "glm4_moe": {"rope_scaling": None},
    "glm_moe_dsa": {"rope_parameters": _ROPE, "num_key_value_heads": 4},
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.5},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_proj_bias": False,
        "mamba_d_state": 8,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_conv_bias": True,
    },
    "hunyuan": {
        "moe_topk": 2,
        "num_shared_expert": 1,
        "use_mixed_mlp_moe": True,
        "use_cla": False,
        "cla_share_factor": 2,
        "rope_scaling": {"alpha": 1.0, "factor": 1.0, "type": "dynamic"},
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 8,
        "mamba_expand": 2,
    },
    "kimi_linear": _KIMI_LINEAR,
    "kimi_k3": {
        **_KIMI_LINEAR,
        "attn_res_block_size": 2,
        "hidden_act": "situ",
        "activation_situ_beta": 1.0,
    },
    "lfm2": {
        "block_dim": 64,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1],
    },
    "lfm2_moe": {"use_expert_bias": True, "num_dense_layers": 1, "full_attn_idxs": [1]},
    "lille-130m": {"block_size": 2048, "n_kv_heads": 2},
    "llama4": {},
    "llama4_text": {
        "attention_chunk_size": 16,
        "interleave_moe_layer_step": 1,
        "rope_scaling": None,
        "intermediate_size_mlp": 96,
        "no_rope_layers": [1, 0],
    },
    "longcat_flash": _LONGCAT,
    "longcat_flash_ngram": {**_LONGCAT, "ngram_vocab_size_ratio": 3},
    "mamba2": CONFIGS["mamba2"],
    "mellum": {
        "layer_types": _HYBRID,
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [1, 0],
        "moe_layer_freq": [0, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "sliding_window_size": 8,
        "swa_rope_theta": 10000.0,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 16,
        "swa_v_head_dim": 16,
    },
    "minicpm": {"dim_model_base": 64, "scale_depth": 1.4, "scale_emb": 1.0},
    "minicpm3": {
        "dim_model_base": 64,
        "scale_depth": 1.4,
        "scale_emb": 1.0,
        "rope_scaling": {
            "original_max_position_embeddings": 2048,
            "short_factor": 1.0,
            "long_factor": 1.0,
        },
    },
    "minimax": {"rotary_dim": 8},
    "minimax_m3_vl": {
        "dense_intermediate_size": 96,
        "moe_layer_freq": [0, 1],
        "index_block_size": 16,
        "index_topk_blocks": 4,
        "sparse_attention_freq": [0, 1],
    },
    "ministral3": {
        "rope_parameters": {
            **_ROPE,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 2048,
        },
        "layer_types": _HYBRID,
    },
    "mistral4": {
        "rope_parameters": {
            **_ROPE,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 2048,
        },
        "num_key_value_heads": 4,
    },
    "muse_spark": {
        "post_norm_eps": 1e-5,
        "rope_parameters": _ROPE,
        "layer_rope_theta": [10000.0, 0.0],
        "layer_types": _HYBRID,
        "final_logit_softcapping": 30.0,
        "output_multiplier": 1.0,
        "moe_hidden_size": 64,
        "mlp_layer_types": ["sparse", "sparse"],
    },
    "nemotron": {"hidden_act": "relu2"},
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
        ]
    },
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "mamba_proj_bias": False,
        "hybrid_override_pattern": ["M", "*"],
        "time_step_limit": (0.0, 100.0),
    },
    "olmo3": {"layer_types": _HYBRID},
    "olmo_hybrid": {"linear_allow_neg_eigval": True, "layer_types": _LINEAR},
    "openelm": {
        "num_transformer_layers": 2,
        "model_dim": 64,
        "ffn_dim_divisor": 8,
        "num_query_heads": [4, 4],
        "num_kv_heads": [2, 2],
        "ffn_multipliers": [1.0, 1.5],
    },
    "phi3small": {
        "dense_attention_every_n_layers": 2,
        "ff_intermediate_size": 96,
        "gegelu_limit": 20.0,
    },
    "phixtral": {"num_vocab": VOCABULARY, "model_dim": 64, "num_heads": 4, "rotary_dim": 8},
    "plamo": {"n_shared_head": 2},
    "plamo2": {
        "hidden_size_per_head": 16,
        "mamba_num_heads": 4,
        "mamba_d_state": 8,
    },
    "qwen": {"kv_channels": 16},
    "qwen3_5_moe": {**CONFIGS["qwen3_5"], "num_experts": 4},
    "recurrent_gemma": {
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "attention_window_size": 8,
        "block_types": ["recurrent", "attention"],
        "num_key_value_heads": 1,
    },
    "rwkv7": {
        "a_low_rank_dim": 8,
        "v_low_rank_dim": 8,
        "gate_low_rank_dim": 8,
        "decay_low_rank_dim": 8,
    },
    "spark2_5": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
        "layer_types": _HYBRID,
        "hidden_act": "gelu",
    },
    "step3p5": {
        "num_attention_groups": 2,
        "layer_types": _HYBRID,
        "moe_num_experts": 4,
        "moe_top_k": 2,
        "share_expert_dim": 32,
        "moe_layers_enum": "1",
    },
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
