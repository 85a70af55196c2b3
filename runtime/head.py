"""The output head: applied to the last position only, and what the layers hand to it.

On the MLX thread.
"""

from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from greenroom.runtime.host import MLX_DTYPES, from_host, host_dtype, to_host
from greenroom.runtime.quantize import Array


class _Last(nn.Module):
    """A module that projects the last position only: ``(B, L, D)`` to ``(B, 1, V)``.

    A chunk of prefill needs one row of logits; over a large vocabulary the other rows cost as
    much as several layers.
    """

    def __init__(self, inner: nn.Module) -> None:
        nn.Module.__init__(self)
        self.inner = inner
        self._input: mx.array | None = None

    @property
    def weight(self) -> mx.array:
        """The wrapped module's weight: some models read its dtype."""
        return cast("mx.array", self.inner.weight)

    def project(self, x: mx.array, *rest: Any) -> mx.array:
        """What the wrapped module makes of ``x``."""
        raise NotImplementedError

    def take_input(self) -> mx.array | None:
        """The last position that it projected, ``(B, 1, D)``; None where that has been taken."""
        taken, self._input = self._input, None
        return taken

    def _project_last(self, x: mx.array, *rest: Any) -> mx.array:
        self._input = x[:, -1:]
        return self.project(self._input, *rest)


class LastPosition(_Last):
    """An output head of its own."""

    def __call__(self, x: mx.array, *rest: Any) -> mx.array:
        return self._project_last(x, *rest)

    def project(self, x: mx.array, *rest: Any) -> mx.array:
        return cast("mx.array", self.inner(x, *rest))


class LastPositionEmbedding(_Last):
    """An embedding that may serve as tied output head: looks up all, projects the last."""

    def __call__(self, ids: mx.array) -> mx.array:
        return cast("mx.array", self.inner(ids))

    def as_linear(self, x: mx.array) -> mx.array:
        return self._project_last(x)

    def project(self, x: mx.array, *rest: Any) -> mx.array:
        return cast("mx.array", self.inner.as_linear(x))


def last_position_head(model: nn.Module) -> nn.Module:
    """Replace the output head of ``model``, in place, by one for the last position; return it.

    Whether a model's head is its own or tied to the embedding is up to its code, so both are
    wrapped: an embedding that is only looked up behaves as before. A model whose head is neither
    keeps it and goes on answering all positions. Safe to call twice.
    """
    modules = model.named_modules()
    if any(isinstance(module, _Last) for _, module in modules):
        return model
    rows = {module.weight.shape[0] for _, module in modules if hasattr(module, "as_linear")}
    wrapped: list[tuple[str, nn.Module]] = []
    for name, module in modules:
        if hasattr(module, "as_linear"):
            wrapped.append((name, LastPositionEmbedding(module)))
        elif _is_output_head(name, module, rows):
            wrapped.append((name, LastPosition(module)))
    heads = {name for name, _ in wrapped}
    # A head made of several modules is wrapped as a whole.
    outer = [(n, m) for n, m in wrapped if not any(n.startswith(f"{head}.") for head in heads)]
    model.update_modules(tree_unflatten(outer))
    return model


def _is_output_head(name: str, module: nn.Module, vocabulary_sizes: set[int]) -> bool:
    """A projection outside the layers, named ``lm_head`` or as wide as an embedding is long."""
    if any(part.isdigit() for part in name.split(".")):
        return False
    if name.rpartition(".")[2] == "lm_head":
        return True
    is_linear = isinstance(module, (nn.Linear, nn.QuantizedLinear))
    return is_linear and module.weight.shape[0] in vocabulary_sizes


class OutputHead:
    """The head of a model that ``last_position_head`` has been through, apart from its layers.

    A prompt's last hidden state is a few kilobytes and stands for its logits, a hundred times as
    many: they are the head's product with it. Some models do more to their logits than that
    (caps, scales), of which the head alone knows nothing, and of these nothing is ``taken``. The
    ``logits`` of the model's last pass tell, to the bit.
    """

    def __init__(self, model: nn.Module, logits: mx.array) -> None:
        self._heads = [m for _, m in model.named_modules() if isinstance(m, _Last)]
        self._plain: _Last | None = None
        used = [(head, x) for head in self._heads if (x := head.take_input()) is not None]
        if len(used) == 1:
            head, hidden = used[0]
            if hidden.dtype in MLX_DTYPES.values() and _equal(head.project(hidden), logits):
                self._plain = head
                self._width = hidden.shape[-1]
                self._dtype = next(n for n, d in MLX_DTYPES.items() if d == hidden.dtype)

    def taken(self) -> mx.array | None:
        """The last hidden state ``(1, 1, D)`` of the forward pass before, if it can be used.

        Nothing of that pass is held any longer.
        """
        inputs = {id(head): head.take_input() for head in self._heads}
        return inputs.get(id(self._plain))

    def fits(self, last_hidden: Array) -> bool:
        """Whether ``logits`` can be made of it."""
        return (
            self._plain is not None
            and last_hidden.shape == (self._width,)
            and last_hidden.dtype == host_dtype(self._dtype)
        )

    def logits(self, last_hidden: Array) -> mx.array:
        """The logits ``(1, V)`` after a prompt; bit for bit those of the pass it was taken from."""
        assert self._plain is not None
        return self._plain.project(from_host(last_hidden, self._dtype)[None, None])[:, -1]


def kept(taken: mx.array) -> Array:
    """What was ``taken``, evaluated, as it is kept: ``(D,)`` on the host, a copy."""
    row: Array = to_host(taken)[0, 0].copy()
    return row


def _equal(one: mx.array, two: mx.array) -> bool:
    return bool(mx.array_equal(one, two).item())
