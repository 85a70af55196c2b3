"""Greenroom: long-lived LLM agents whose attention state outlives turns, evictions and restarts."""

from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from greenroom.runtime.blas import Blas, preload_blas

if TYPE_CHECKING:
    from greenroom.actors.room import Room

__version__ = version("greenroom")

# Every module of the package is imported after this one, so the BLAS is in place before MLX is.
BLAS: Final[Blas] = preload_blas()

__all__ = ["BLAS", "__version__", "open"]


def open(
    model: str | None = None, *, home: str | Path | None = None, **settings: Any
) -> "AbstractAsyncContextManager[Room]":
    """A room: a loaded model and its agents, in this process; see ``greenroom.actors.room``.

    ``model`` is a catalog name, a Hugging Face id or a folder; ``home`` is where models and
    memories are kept. Other settings are given with ``__`` for the dot, as in
    ``stage__max_batch_size=4``. Entering raises SettingsError or ModelUnavailable.
    """
    from greenroom.actors.room import open_room  # loads MLX, which a look at the version need not

    return open_room(model, home=home, **settings)
