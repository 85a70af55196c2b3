"""Types as JSON schemas, for what a model must answer and for what a tool takes."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class Shape(Generic[T]):
    """What an answer must be: a msgspec Struct, a dataclass, a TypedDict, any type that msgspec
    knows, or a pydantic model. Raises TypeError for another type.

    ``schema`` is its JSON schema, closed to fields that it does not name; ``read`` makes one from
    JSON text, and raises ValueError when that is not one.

    >>> class Verdict(msgspec.Struct):
    ...     guilty: bool
    >>> shape = Shape(Verdict)
    >>> shape.schema["properties"], shape.schema["additionalProperties"]
    ({'guilty': {'type': 'boolean'}}, False)
    >>> shape.read('{"guilty": true}')
    Verdict(guilty=True)
    """

    schema: Mapping[str, Any]
    read: Callable[[str], T]

    def __init__(self, kind: type[T]) -> None:
        pydantic: Any = kind
        if hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate_json"):
            self.schema = _closed(pydantic.model_json_schema())
            self.read = pydantic.model_validate_json
        else:
            self.schema = _closed(schema_of(kind))
            self.read = msgspec.json.Decoder(kind).decode


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type that msgspec knows, without a reference at its top."""
    (top,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    name = top.get("$ref", "").removeprefix("#/$defs/")
    # A type that refers to itself keeps its definition.
    schema = dict(parts[name]) if name else dict(top)
    if name and f'"#/$defs/{name}"' not in json.dumps(parts):
        del parts[name]
    schema.pop("title", None)
    if parts:
        schema["$defs"] = parts
    # Through JSON once: a default may be anything that msgspec can encode.
    plain: dict[str, Any] = json.loads(msgspec.json.encode(schema))
    return plain


def _closed(schema: Any) -> Any:
    """The same, with every object closed to further fields: a small model would go on and on."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed
