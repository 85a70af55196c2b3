"""Loading: weights for the device, the fingerprint's reach, logits of the last position."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.loader import last_position_head, load, pick_device, pick_platform

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


def _model(name: str) -> nn.Module:
    config = {**_COMMON, **_MODELS[name]}
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


def test_on_the_cpu_all_weights_are_float32(default_model_path: Path) -> None:
    loaded = load(default_model_path, device="cpu")
    parameters = cast("list[tuple[str, mx.array]]", tree_flatten(loaded.model.parameters()))
    kinds = {array.dtype for _, array in parameters}
    assert kinds == {mx.float32}
    assert loaded.context_window == 8192
    assert loaded.config["model_type"] == "llama"
    assert loaded.tokenizer.eos_token_ids == {2}
    stored = mx.load(str(default_model_path / "model.safetensors"))
    assert isinstance(stored, dict)
    name = "model.layers.3.mlp.up_proj"
    exact = mx.dequantize(
        stored[f"{name}.weight"],
        stored[f"{name}.scales"].astype(mx.float32),
        stored[f"{name}.biases"].astype(mx.float32),
        group_size=32,
        bits=4,
    )
    assert mx.array_equal(loaded.model.layers[3].mlp.up_proj.weight, exact)


def test_the_context_window_can_be_shortened_only(tiny: Path) -> None:
    assert load(tiny, device="cpu", context_window=100).context_window == 100
    assert load(tiny, device="cpu", context_window=10**6).context_window == 512


@pytest.fixture
def tiny(tmp_path: Path, default_model_path: Path) -> Path:
    """A folder with a random llama and the default model's tokenizer."""
    folder = tmp_path / "tiny"
    shutil.copytree(
        default_model_path, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    model = _model("llama-tied")
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    config = {**_COMMON, **_MODELS["llama-tied"], "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("damage", ["model_type", "weights", "config"])
def test_what_cannot_be_loaded_is_unavailable(tiny: Path, damage: str) -> None:
    if damage == "model_type":
        config = json.loads((tiny / "config.json").read_text())
        (tiny / "config.json").write_text(json.dumps({**config, "model_type": "nothing"}))
    elif damage == "weights":
        (tiny / "model.safetensors").unlink()
    else:
        (tiny / "config.json").unlink()
    with pytest.raises(ModelUnavailable):
        load(tiny, device="cpu")


def test_a_model_too_large_for_the_cpu_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greenroom.runtime.loader._memory_bytes", lambda: 10_000)
    with pytest.raises(ModelUnavailable, match="choose a smaller model"):
        load(tiny, device="cpu")


def test_device_and_platform_follow_what_mlx_finds() -> None:
    has_gpu = mx.metal.is_available() or mx.cuda.is_available()
    assert pick_device("cpu") == "cpu"
    assert pick_platform("cpu") == "cpu"
    assert pick_device("auto") == ("gpu" if has_gpu else "cpu")
    if not has_gpu:
        with pytest.raises(ModelUnavailable, match="neither Metal nor CUDA"):
            pick_device("gpu")
