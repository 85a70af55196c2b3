"""Messages as bytes. A ref travels as its actor's path; a reply channel cannot travel."""

from __future__ import annotations

from typing import Any, TypeVar, get_origin

import msgspec

from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import NotFound
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System

T = TypeVar("T")


def encode(message: object) -> bytes:
    """MessagePack. Raises TypeError for a message that holds a reply channel (or another live
    object): such a message cannot leave its process."""
    return msgspec.msgpack.encode(message, enc_hook=_to_wire)


def decode(data: bytes, kind: type[T], system: System) -> T:
    """The message, a ``kind`` (a message class or a union of them), its refs those of ``system``.

    Raises msgspec.ValidationError, or NotFound for a ref to an actor that does not exist.
    """

    def from_wire(wanted: type, value: Any) -> Any:
        if wanted is Ref or get_origin(wanted) is Ref:
            ref = system.get(str(value))
            if ref is None:
                raise NotFound(f"There is no actor {value!r}.", param="ref")
            return ref
        raise NotImplementedError(f"{wanted} does not travel")

    return msgspec.msgpack.decode(data, type=kind, dec_hook=from_wire)


def _to_wire(value: Any) -> Any:
    if isinstance(value, Ref):
        return value.path
    if isinstance(value, Channel):
        raise TypeError("a message with a reply channel cannot leave its process")
    raise NotImplementedError(f"{type(value).__name__} does not travel")
