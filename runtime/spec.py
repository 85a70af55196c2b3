"""What a model keeps in its caches, learned from the model itself and never from its name."""

from collections.abc import Mapping
from typing import Any, Literal

import mlx.core as mx
import msgspec
from mlx import nn
from mlx_lm.models.cache import KVCache, make_prompt_cache

from greenroom.runtime.errors import ModelUnavailable

LayerKind = Literal["full"]
DTypeName = Literal["float32", "float16", "bfloat16"]

# Matched by exact class: a subclass may keep more than its parent, and would be restored wrongly.
_KINDS: Mapping[type, LayerKind] = {KVCache: "full"}
_DTYPES: Mapping[mx.Dtype, DTypeName] = {
    mx.float32: "float32",
    mx.float16: "float16",
    mx.bfloat16: "bfloat16",
}
_CONTEXT_KEYS = ("max_position_embeddings", "max_seq_len", "n_positions", "seq_length")


class LayerSpec(msgspec.Struct, frozen=True):
    """One layer's cache: ``heads`` rows of ``k_dim`` and ``v_dim`` elements per token."""

    kind: LayerKind
    heads: int
    k_dim: int
    v_dim: int
    dtype: DTypeName


class CacheSpec(msgspec.Struct, frozen=True):
    """Every layer's cache in the model's order, and the longest sequence that it serves."""

    layers: tuple[LayerSpec, ...]
    context_window: int

    @property
    def float_bytes_per_token(self) -> int:
        """Bytes that one token takes on the stage."""
        return sum(
            layer.heads * (layer.k_dim + layer.v_dim) * (4 if layer.dtype == "float32" else 2)
            for layer in self.layers
        )

    @property
    def elements_per_token(self) -> int:
        return sum(layer.heads * (layer.k_dim + layer.v_dim) for layer in self.layers)

    def groups(self) -> tuple[tuple[LayerSpec, tuple[int, ...]], ...]:
        """Layers of equal shape with their indices: such layers are encoded together."""
        found: dict[LayerSpec, list[int]] = {}
        for index, layer in enumerate(self.layers):
            found.setdefault(layer, []).append(index)
        return tuple((layer, tuple(indices)) for layer, indices in found.items())

    def place(self, layer: int) -> tuple[int, int]:
        """(group, position within it) of the layer with index ``layer``."""
        shape = self.layers[layer]
        number = list(dict.fromkeys(self.layers)).index(shape)
        return number, self.layers[:layer].count(shape)


def extract_spec(model: nn.Module, config: Mapping[str, Any] | None = None) -> CacheSpec:
    """Read the spec off ``model`` by one forward of one token.

    ``config`` is the checkpoint's config.json, asked for the context window when the model's own
    arguments do not tell it. Raises ModelUnavailable naming the layer and its class when a cache
    cannot be kept and restored rightly.
    """
    caches = make_prompt_cache(model)
    for index, cache in enumerate(caches):
        if type(cache) not in _KINDS:
            raise ModelUnavailable(
                f"layer {index} of this model keeps a {type(cache).__name__}, "
                "which greenroom cannot keep at rest yet"
            )
    logits = model(mx.array([[0]]), cache=caches)
    mx.eval(logits, [cache.state[:2] for cache in caches])
    layers = tuple(_layer(index, cache) for index, cache in enumerate(caches))
    return CacheSpec(layers, _context_window(model, config or {}))


def _layer(index: int, cache: KVCache) -> LayerSpec:
    keys, values = cache.keys, cache.values
    if keys is None or values is None or cache.offset != 1:
        raise ModelUnavailable(
            f"layer {index} of this model left its {type(cache).__name__} empty after one token"
        )
    dtype = _DTYPES.get(keys.dtype)
    if dtype is None or values.dtype != keys.dtype:
        raise ModelUnavailable(
            f"layer {index} of this model caches {keys.dtype} keys and {values.dtype} values"
        )
    batch, heads, _, k_dim = keys.shape
    if batch != 1 or values.shape[1] != heads:
        raise ModelUnavailable(
            f"layer {index} of this model caches keys of shape {tuple(keys.shape)} "
            f"and values of shape {tuple(values.shape)}"
        )
    return LayerSpec(_KINDS[type(cache)], heads, k_dim, values.shape[3], dtype)


def _context_window(model: nn.Module, config: Mapping[str, Any]) -> int:
    text_model = getattr(model, "language_model", model)
    arguments = [getattr(each, "args", None) for each in (model, text_model)]
    sources: list[Mapping[str, Any]] = [vars(each) for each in arguments if each is not None]
    for source in (*sources, config, config.get("text_config", {})):
        for key in _CONTEXT_KEYS:
            value = source.get(key)
            if isinstance(value, int) and value > 0:
                return value
    raise ModelUnavailable(
        "neither the model nor its config.json tells the context window "
        f"(looked for {', '.join(_CONTEXT_KEYS)})"
    )
