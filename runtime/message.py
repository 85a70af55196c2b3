"""Messages: what actors send each other.

A message is a frozen, tagged msgspec Struct. A request is a message that declares the type of its
answer, so that ``await ref.ask(request)`` is typed without proxies (after actix's
``Message::Result``). Subclasses repeat ``frozen=True`` for the type checkers' sake.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from greenroom.runtime.ref import Ref

R_co = TypeVar("R_co", covariant=True)


class Message(Struct, frozen=True, tag=True):
    """A message that expects no answer. The tag on the wire is the class's name."""


class Request(Message, Generic[R_co], frozen=True):
    """A message whose answer is an ``R``: what the receiver's ``handle`` returns for it.

    A field named ``reply`` that holds a Channel ties the message to its reader: when the reader
    cancels, a queued message is withdrawn and a running handler is cancelled.
    """


class Terminated(Message, frozen=True):
    """A watched actor is gone for good (a restart or a passivation does not count).

    It travels on the supervision lane: it overtakes ordinary messages, those of the dead actor
    too, and is delivered once for each ``watch``.
    """

    ref: Ref[Any]
    reason: Literal["stopped", "killed", "failed"]
