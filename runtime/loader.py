"""From a model folder to a model on its device, with the choices that a device asks for.

Everything here creates arrays: call it on the thread that owns MLX.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from mlx import nn
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import (
    dequantize_model,
    get_total_parameters,
    load_config,
    load_model,
    load_tokenizer,
)

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.fingerprint import fingerprint
from greenroom.runtime.host import wire_memory

Device = Literal["cpu", "gpu"]

# Share of the physical memory that float32 weights may take; caches need the rest.
_MEMORY_SHARE = 0.8
# Where a checkpoint does not say (state-space models have no limit of their own).
_UNKNOWN_WINDOW = 32768


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    ``model`` maps token ids ``(B, L)`` and caches to logits ``(B, L, vocabulary)``; pass it to
    ``last_position_head`` to have ``(B, 1, vocabulary)``. ``config`` is the checkpoint's
    config.json. ``context_window`` counts tokens. ``fingerprint`` is the digest that the segments
    of this model carry.
    """

    model: nn.Module
    tokenizer: TokenizerWrapper
    config: dict[str, Any]
    path: Path
    device: Device
    context_window: int
    fingerprint: str


def pick_device(wanted: Literal["auto", "cpu", "gpu"] = "auto") -> Device:
    """The device to serve on: the GPU (Metal or CUDA) where there is one, unless told otherwise.

    Raises ``ModelUnavailable`` when a GPU is asked for and MLX finds none.
    """
    has_gpu = mx.metal.is_available() or mx.cuda.is_available()
    if wanted == "gpu" and not has_gpu:
        raise ModelUnavailable(
            "model.device is 'gpu', but MLX finds neither Metal nor CUDA here; on Linux with an "
            "NVIDIA card install greenroom[cuda]"
        )
    return "gpu" if has_gpu and wanted != "cpu" else "cpu"


def pick_platform(device: Device) -> Literal["cpu", "metal", "cuda"]:
    """The backend behind ``device``; the catalog has a default model for each."""
    if device == "cpu":
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def load(
    path: Path,
    *,
    device: Device,
    context_window: int | None = None,
    sidecars: Path | None = None,
    lazy: bool = False,
) -> LoadedModel:
    """Load the model in the folder ``path`` through mlx-lm and make it ready for ``device``.

    On the CPU the weights become float32, because half precision and quantized products are
    emulated there; on a GPU the checkpoint's own quantization stays. ``context_window`` may only
    shorten what the checkpoint allows. ``sidecars`` is the fingerprint's cache folder. A ``lazy``
    model has no weights in memory until something is computed with it.
    Sets MLX's default device. Raises ``ModelUnavailable``.
    """
    mx.set_default_device(mx.cpu if device == "cpu" else mx.gpu)
    with ThreadPoolExecutor(2) as aside:  # while the weights are read
        digest = aside.submit(fingerprint, path, sidecars=sidecars)
        try:
            config = load_config(path)
            tokenizer = aside.submit(load_tokenizer, path, eos_token_ids=config.get("eos_token_id"))
            model, config = load_model(path, lazy=True)
            if device == "cpu":
                if not lazy:
                    _check_memory(model)
                _to_float32(model)
            elif not lazy:
                wire_memory()
            if not lazy:
                mx.eval(model.parameters())
            made = tokenizer.result()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            digest.result()  # no model at all is the clearer reason
            raise ModelUnavailable(f"mlx-lm cannot load {path}: {error}") from error
    window = _context_window(config)
    return LoadedModel(
        model=model,
        tokenizer=made,
        config=config,
        path=path,
        device=device,
        context_window=min(window, context_window or window),
        fingerprint=digest.result(),
    )


def _check_memory(model: nn.Module) -> None:
    needed = 4 * get_total_parameters(model)
    available = _memory_bytes()
    if needed > _MEMORY_SHARE * available:
        raise ModelUnavailable(
            f"on the CPU this model takes {needed / 1e9:.1f} GB in float32, and the machine has "
            f"{available / 1e9:.1f} GB; choose a smaller model (model.name)"
        )


def _to_float32(model: nn.Module) -> None:
    """Dequantize in float32 from scales raised to float32, so that nothing is rounded again."""
    model.set_dtype(mx.float32)
    dequantize_model(model)
    model.set_dtype(mx.float32)  # some quantization modes answer bfloat16 whatever their scales


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _context_window(config: dict[str, Any]) -> int:
    """Tokens the checkpoint was made for; multimodal checkpoints keep it a level deeper."""
    for place in (config, config.get("text_config") or {}):
        for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
            if isinstance(value := place.get(key), int):
                return value
    return _UNKNOWN_WINDOW
