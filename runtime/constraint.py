"""What an answer must be. Plain data; ``runtime/lark.py`` makes grammars of it."""

from collections.abc import Mapping
from typing import Any

import msgspec


class JsonAnswer(msgspec.Struct, frozen=True, tag=True):
    """The answer is one JSON document that ``schema`` describes; ``param`` names where it is from.

    A schema of ``{"type": "object"}`` takes any object.
    """

    schema: Mapping[str, Any]
    param: str = "response_format"


class ForcedCalls(msgspec.Struct, frozen=True, tag=True):
    """The answer is a call of one of the turn's tools, of the one ``name`` if that is set.

    Several calls may follow one another if ``many``.
    """

    name: str | None = None
    many: bool = False
    param: str = "tools"


Constraint = JsonAnswer | ForcedCalls
