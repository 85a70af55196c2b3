"""What a model keeps in its caches, learned from the model itself and never from its name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import mlx.core as mx
import msgspec
from mlx import nn
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache, make_prompt_cache

from greenroom.runtime.errors import ModelUnavailable

LayerKind = Literal["full", "window"]
DTypeName = Literal["float32", "float16", "bfloat16"]
StateDType = Literal["float32", "float16", "bfloat16", "int64"]

_DTYPES: Mapping[mx.Dtype, DTypeName] = {
    mx.float32: "float32",
    mx.float16: "float16",
    mx.bfloat16: "bfloat16",
}
# int64: token ids, which some models keep for their n-grams.
_STATE_DTYPES: Mapping[mx.Dtype, StateDType] = {**_DTYPES, mx.int64: "int64"}
_CONTEXT_KEYS = ("max_position_embeddings", "max_seq_len", "n_positions", "seq_length")
# A model without attention over the whole context has no limit of its own.
_ENDLESS = 32768
# Long enough for every convolution and n-gram to have its final shape.
_PROBE = 16


class LayerSpec(msgspec.Struct, frozen=True):
    """A cache of keys and values: ``heads`` rows of ``k_dim`` and ``v_dim`` elements per token.

    "full" keeps every token, "window" what the newest ``window`` tokens left. Attention sinks are
    weights, and need no kind of their own. Either width may be 0 (an indexer keeps keys only).
    """

    kind: LayerKind
    heads: int
    k_dim: int
    v_dim: int
    dtype: DTypeName
    window: int = 0

    @property
    def elements(self) -> int:
        """Elements per token."""
        return self.heads * (self.k_dim + self.v_dim)


class ArraySpec(msgspec.Struct, frozen=True):
    """One array of a state, its shape without the batch."""

    shape: tuple[int, ...]
    dtype: StateDType


class StateSpec(msgspec.Struct, frozen=True):
    """Recurrent or convolution state: arrays of fixed shape that stand for all tokens so far."""

    arrays: tuple[ArraySpec, ...]


CellSpec = LayerSpec | StateSpec


class CacheSpec(msgspec.Struct, frozen=True):
    """Every layer's cache in the model's order, and the longest sequence that it serves.

    The caches of a ``CacheList`` count each; ``lists`` says how many each of the model's caches
    has, 0 for a plain one. Empty when all are plain.
    """

    layers: tuple[CellSpec, ...]
    context_window: int
    lists: tuple[int, ...] = ()

    def attention(self, kind: LayerKind) -> list[LayerSpec]:
        """The caches of keys and values of one kind."""
        return [c for c in self.layers if isinstance(c, LayerSpec) and c.kind == kind]

    @property
    def float_bytes_per_token(self) -> int:
        """Bytes that one more token takes on the stage."""
        return sum(c.elements * _width(c.dtype) for c in self.attention("full"))

    @property
    def float_bytes_fixed(self) -> int:
        """Bytes that full windows and states take on the stage, however long the sequence."""
        states = [cell for cell in self.layers if isinstance(cell, StateSpec)]
        return sum(c.window * c.elements * _width(c.dtype) for c in self.attention("window")) + sum(
            math.prod(a.shape) * _width(a.dtype) for s in states for a in s.arrays
        )

    @property
    def elements_per_token(self) -> int:
        """Elements that one more token takes."""
        return sum(cell.elements for cell in self.attention("full"))

    @property
    def windows(self) -> tuple[int, ...]:
        """The lengths of the sliding windows, ascending."""
        return tuple(sorted({cell.window for cell in self.attention("window")}))

    @property
    def stateful(self) -> bool:
        """Whether any layer's cache can only be had where the sequence stood."""
        return any(isinstance(cell, StateSpec) for cell in self.layers)

    @property
    def forgetful(self) -> bool:
        """Whether any layer's cache cannot be cut wherever one likes."""
        return self.stateful or bool(self.windows)

    def groups(self) -> tuple[tuple[CellSpec, tuple[int, ...]], ...]:
        """Layers of equal shape with their indices: such layers are encoded together."""
        found: dict[CellSpec, list[int]] = {}
        for index, layer in enumerate(self.layers):
            found.setdefault(layer, []).append(index)
        return tuple((layer, tuple(indices)) for layer, indices in found.items())

    def place(self, layer: int) -> tuple[int, int]:
        """(group, position within it) of the layer with index ``layer``."""
        shape = self.layers[layer]
        number = list(dict.fromkeys(self.layers)).index(shape)
        return number, self.layers[:layer].count(shape)


def _width(dtype: StateDType) -> int:
    return {"int64": 8, "float32": 4}.get(dtype, 2)


def cells(caches: Sequence[Any]) -> list[Any]:
    """The model's caches with those of each ``CacheList`` in its place."""
    flat: list[Any] = []
    for cache in caches:
        flat.extend(cache.caches if type(cache) is CacheList else (cache,))
    return flat


def extract_spec(model: nn.Module, config: Mapping[str, Any] | None = None) -> CacheSpec:
    """Read the spec off ``model`` by one forward of a few tokens, or two if it keeps states.

    ``config`` is the checkpoint's config.json, asked for the context window when the model's own
    arguments do not tell it. Raises ModelUnavailable naming the layer and its class when a cache
    cannot be kept and restored rightly.
    """
    caches = make_prompt_cache(model)
    names = _names(caches)
    flat = cells(caches)
    for name, cell in zip(names, flat, strict=True):
        _refuse_unknown(name, cell)
    _forward(model, caches)
    layers = tuple(_cell(name, cell) for name, cell in zip(names, flat, strict=True))
    lists = tuple(len(c.caches) if type(c) is CacheList else 0 for c in caches)
    spec = CacheSpec(layers, 0, lists if any(lists) else ())
    if spec.stateful:
        _forward(model, caches)
        for name, cell, layer in zip(names, flat, layers, strict=True):
            if isinstance(layer, StateSpec) and _cell(name, cell) != layer:
                raise ModelUnavailable(f"{name} of this model keeps a state that grows")
    window = _context_window(model, config or {}, endless=not spec.attention("full"))
    return msgspec.structs.replace(spec, context_window=window)


def _names(caches: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for index, cache in enumerate(caches):
        inner = len(cache.caches) if type(cache) is CacheList else 0
        nested = [f"layer {index} (cache {i} of its CacheList)" for i in range(inner)]
        names.extend(nested or [f"layer {index}"])
    return names


def _refuse_unknown(name: str, cell: Any) -> None:
    # By exact class: a subclass may keep more than its parent, and would be restored wrongly.
    if type(cell) not in (KVCache, RotatingKVCache, ArraysCache):
        raise ModelUnavailable(
            f"{name} of this model keeps a {type(cell).__name__}, "
            "which greenroom cannot keep at rest"
        )
    if type(cell) is RotatingKVCache and cell.keep:
        raise ModelUnavailable(
            f"{name} of this model keeps its first {cell.keep} tokens beside the window of a "
            "RotatingKVCache, which mlx-lm loses in a batch"
        )


def _forward(model: nn.Module, caches: Sequence[Any]) -> None:
    # Nothing is evaluated: shapes and types are known without, and so without any weights.
    model(mx.zeros((1, _PROBE), mx.uint32), cache=caches)


def _cell(name: str, cell: Any) -> CellSpec:
    if type(cell) is ArraysCache:
        return StateSpec(tuple(_array(name, array) for array in cell.cache))
    keys, values = cell.keys, cell.values
    if keys is None or values is None or cell.offset != _PROBE:
        raise ModelUnavailable(f"{name} of this model leaves its {type(cell).__name__} unused")
    dtype = _DTYPES.get(keys.dtype)
    if dtype is None or values.dtype != keys.dtype:
        raise ModelUnavailable(
            f"{name} of this model caches {keys.dtype} keys and {values.dtype} values"
        )
    batch, heads, _, k_dim = keys.shape
    if batch != 1 or values.shape[1] != heads:
        raise ModelUnavailable(
            f"{name} of this model caches keys of shape {tuple(keys.shape)} "
            f"and values of shape {tuple(values.shape)}"
        )
    if type(cell) is RotatingKVCache:
        return LayerSpec("window", heads, k_dim, values.shape[3], dtype, cell.max_size)
    return LayerSpec("full", heads, k_dim, values.shape[3], dtype)


def _array(name: str, array: mx.array | None) -> ArraySpec:
    if array is None:
        raise ModelUnavailable(f"{name} of this model leaves a part of its ArraysCache unused")
    dtype = _STATE_DTYPES.get(array.dtype)
    if dtype is None or array.shape[0] != 1:
        raise ModelUnavailable(
            f"{name} of this model keeps a state of {array.dtype} {tuple(array.shape)}"
        )
    return ArraySpec(tuple(array.shape[1:]), dtype)


def _context_window(model: nn.Module, config: Mapping[str, Any], *, endless: bool) -> int:
    text_model = getattr(model, "language_model", model)
    arguments = [getattr(each, "args", None) for each in (model, text_model)]
    sources: list[Mapping[str, Any]] = [vars(each) for each in arguments if each is not None]
    for source in (*sources, config, config.get("text_config", {})):
        for key in _CONTEXT_KEYS:
            value = source.get(key)
            if isinstance(value, int) and value > 0:
                return value
    if endless:
        return _ENDLESS
    raise ModelUnavailable(
        "neither the model nor its config.json tells the context window "
        f"(looked for {', '.join(_CONTEXT_KEYS)})"
    )
