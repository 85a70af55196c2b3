"""Tiny random models of every architecture, built as checkpoints are: from a config.json."""

import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

VOCABULARY = 97
# Names as they stand in config.json; each architecture takes those that it knows.
SIZES: Mapping[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "sliding_window": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_local_experts": 4,
    "moe_intermediate_size": 32,
}
_LINEAR: Mapping[str, Any] = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 2,
    "partial_rotary_factor": 0.5,
}
_MLA: Mapping[str, Any] = {
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "qk_nope_head_dim": 16,
    "num_key_value_heads": 4,
}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "gemma3_text": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "gemma4_text": {
        "global_head_dim": 32,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 2,
        "sliding_window_pattern": 2,
        "num_hidden_layers": 4,
        "num_experts": None,
    },
    "deepseek_v2": {
        **_MLA,
        "n_routed_experts": None,
        "n_shared_experts": None,
        "rope_scaling": {
            "type": "yarn",
            "factor": 1.0,
            "original_max_position_embeddings": 2048,
            "mscale_all_dim": 0,
        },
    },
    "gpt_oss": {},
    "qwen3_next": {
        **_LINEAR,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [],
    },
    "qwen3_5": {
        **_LINEAR,
        "num_experts": 0,
        "rope_parameters": {
            "type": "default",
            "mrope_section": [1, 1, 2],
            "rope_theta": 10000,
            "partial_rotary_factor": 0.5,
        },
    },
    "mamba2": {
        "num_heads": 4,
        "head_dim": 32,
        "state_size": 8,
        "intermediate_size": 128,
        "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_limit": (0.0, 1.0),
        "time_step_rank": "auto",
    },
}


def build(name: str, config: Mapping[str, Any] | None = None) -> Any:
    """The architecture ``name`` with random weights, evaluated, in float32.

    Every parameter is moved off its initial value: layers that start as zeros or ones would hide
    what was restored wrongly.
    """
    module = importlib.import_module(f"mlx_lm.models.{name}")
    sizes = {**SIZES, **(CONFIGS[name] if config is None else config), "model_type": name}
    mx.random.seed(5)
    model = module.Model(module.ModelArgs.from_dict(sizes))
    model.update(tree_map(_stirred, model.parameters()))
    mx.eval(model.parameters())
    model.eval()
    return model


def save_checkpoint(folder: Path, tokenizer: Path, config: Mapping[str, Any]) -> Path:
    """A random model in mlx-lm's layout, with the tokenizer of the one in ``tokenizer``."""
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    weights = dict(tree_flatten(build(config["model_type"], config).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _stirred(weight: mx.array) -> mx.array:
    if not mx.issubdtype(weight.dtype, mx.floating):
        return weight
    weight = weight.astype(mx.float32)
    return weight + 0.1 * mx.random.normal(weight.shape)
