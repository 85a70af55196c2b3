"""Numbers of a bounded length in JSON schemas: a small model goes on with digits for ever. Pure."""

from collections.abc import Mapping
from typing import Any

LARGEST = (1 << 53) - 1
"""What every reader of JSON can tell from its neighbours (RFC 8259, section 6)."""
FINEST = 1e-6
"""The last decimal place."""

# Where a schema holds schemas: one, a list of them, or one for each name.
_ONE = ("items", "additionalProperties", "additionalItems", "contains", "if", "then", "else")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")


def bounded(schema: Any) -> Any:
    """The same schema with bounds on the numbers that have none: what it takes, it took before.

    What the schema says itself stands.
    """
    if not isinstance(schema, Mapping):
        return schema
    new: dict[str, Any] = dict(schema)
    for key in _ONE:
        if isinstance(new.get(key), Mapping):
            new[key] = bounded(new[key])
    for key in _LISTS:
        if isinstance(new.get(key), list):
            new[key] = [bounded(each) for each in new[key]]
    for key in _NAMED:
        if isinstance(new.get(key), Mapping):
            new[key] = {name: bounded(each) for name, each in new[key].items()}
    kinds = new.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "enum" in new or "const" in new or not {"integer", "number"} & {str(k) for k in kinds}:
        return new
    return {**new, **_bounds(new, whole="number" not in kinds)}


def _bounds(schema: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """What is to be added to the schema of a number."""
    low, high = _bound(schema, "minimum", -LARGEST), _bound(schema, "maximum", LARGEST)
    if low is None or high is None:
        return {}  # not a schema that anything could be added to
    added: dict[str, Any] = {}
    if low == -LARGEST and high > -LARGEST:
        added["minimum"] = -LARGEST
    if high == LARGEST and low < LARGEST:
        added["maximum"] = LARGEST
    if not whole and "multipleOf" not in schema and high - low > 1000 * FINEST:
        added["multipleOf"] = FINEST
    return added


def _bound(schema: Mapping[str, Any], name: str, default: float) -> float | None:
    """The bound that a schema has, either way of writing it; None where it is no number."""
    exclusive = "exclusive" + name.capitalize()
    given = schema.get(name, schema.get(exclusive, default))
    return given if isinstance(given, int | float) and not isinstance(given, bool) else None
