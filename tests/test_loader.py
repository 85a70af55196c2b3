"""Loading: weights for the device, and the fingerprint's reach."""

import json
from pathlib import Path
from typing import cast

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.loader import load, pick_device, pick_platform
from tests.menagerie import config_of
from tests.zoo import save_checkpoint


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
    config = {**config_of("llama"), "model_type": "llama", "max_position_embeddings": 512}
    return save_checkpoint(tmp_path / "tiny", default_model_path, config)


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
