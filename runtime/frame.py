"""What a prompt is rendered with besides its messages. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from greenroom.runtime.records import Tool


class Frame(msgspec.Struct, frozen=True):
    """What a template renders beside the messages.

    The ``tools``, its other variables (``kwargs``), and the ``date`` that it may print: a time in
    ISO 8601, printed as it is wherever that may be; "" is now.
    """

    tools: tuple[Tool, ...] = ()
    kwargs: Mapping[str, Any] = {}
    date: str = ""


PLAIN = Frame()
"""No tools, no variables, today's date."""


def today() -> str:
    """The date that a new agent is pinned to."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
