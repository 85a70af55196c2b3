"""Greenroom: long-lived LLM agents whose attention state outlives turns, evictions and restarts."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from greenroom.actors.toolloop import ToolBounds
from greenroom.runtime.actor import Actor
from greenroom.runtime.blas import Blas, preload_blas
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.message import Message, Request, Terminated
from greenroom.runtime.records import ChatMessage, Sampling, Tool
from greenroom.runtime.ref import Ref
from greenroom.runtime.supervise import Decision, Supervision

if TYPE_CHECKING:
    from greenroom.actors.room import LocalRoom, Room
    from greenroom.actors.sync import SyncRoom

__version__ = version("greenroom")

# Nothing above imports MLX, and all that does is imported later: the BLAS is in place before.
BLAS: Final[Blas] = preload_blas()

__all__ = [
    "BLAS",
    "Actor",
    "Channel",
    "ChatMessage",
    "Decision",
    "GreenroomError",
    "Message",
    "Ref",
    "Request",
    "Sampling",
    "Supervision",
    "Terminated",
    "Tool",
    "ToolBounds",
    "__version__",
    "connect",
    "connect_sync",
    "open",
    "open_sync",
]


def open(
    model: str | None = None, *, home: str | Path | None = None, **settings: Any
) -> "AbstractAsyncContextManager[LocalRoom]":
    """A room: a loaded model and its agents, in this process; see ``greenroom.actors.room``.

    ``model`` is a catalog name, a Hugging Face id or a folder; ``home`` is where models and
    memories are kept. Other settings are given with ``__`` for the dot, as in
    ``stage__max_batch_size=4``. Entering raises SettingsError or ModelUnavailable.
    """
    from greenroom.actors.room import open_room  # loads MLX, which a look at the version need not

    return open_room(model, home=home, **settings)


def open_sync(
    model: str | None = None, *, home: str | Path | None = None, **settings: Any
) -> "AbstractContextManager[SyncRoom]":
    """``open`` for scripts and notebooks: ``with`` and no ``await``; see ``greenroom.actors.sync``.

    The room has an event loop on a thread of its own, so it may be used where one runs already.
    """
    from greenroom.actors.room import open_room
    from greenroom.actors.sync import in_step

    return in_step(lambda: open_room(model, home=home, **settings))


def connect(
    url: str, *, key: str | None = None, admin_key: str | None = None
) -> "AbstractAsyncContextManager[Room]":
    """The room of a running server: the same objects as ``open`` gives, over HTTP and WebSocket.

    ``key`` is the server's API key; ``room.inspect()`` needs ``admin_key``. Entering raises
    ServerLost when the server cannot be reached, Unauthorized or Forbidden.
    """
    from greenroom.actors.room import connect_room

    return connect_room(url, key=key, admin_key=admin_key)


def connect_sync(
    url: str, *, key: str | None = None, admin_key: str | None = None
) -> "AbstractContextManager[SyncRoom]":
    """``connect`` for scripts and notebooks, as ``open_sync`` is for ``open``."""
    from greenroom.actors.room import connect_room
    from greenroom.actors.sync import in_step

    return in_step(lambda: connect_room(url, key=key, admin_key=admin_key))
