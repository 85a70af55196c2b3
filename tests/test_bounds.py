"""Numbers of a bounded length: schemas are narrowed where they say nothing, and nowhere else."""

from typing import Any

import pytest

from greenroom.runtime.bounds import FINEST, LARGEST, bounded

WHOLE = {"minimum": -LARGEST, "maximum": LARGEST}
REAL = {**WHOLE, "multipleOf": FINEST}


@pytest.mark.parametrize(
    ("schema", "added"),
    [
        ({"type": "integer"}, WHOLE),
        ({"type": "number"}, REAL),
        ({"type": ["integer", "null"]}, WHOLE),
        ({"type": ["number", "string"]}, REAL),
        ({"type": "integer", "minimum": 3}, {"maximum": LARGEST}),
        ({"type": "integer", "minimum": 3, "maximum": 5}, {}),
        ({"type": "number", "exclusiveMaximum": 10}, {"minimum": -LARGEST, "multipleOf": FINEST}),
        ({"type": "number", "minimum": 0, "maximum": 1e-5}, {}),
        ({"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 9}, {}),
        ({"type": "integer", "minimum": 1 << 60}, {}),
        ({"type": "integer", "enum": [1]}, {}),
        ({"type": "string"}, {}),
        ({}, {}),
        ({"type": "integer", "minimum": "x"}, {}),
    ],
)
def test_what_is_added(schema: dict[str, Any], added: dict[str, Any]) -> None:
    assert bounded(schema) == {**schema, **added}


def test_schemas_within_schemas() -> None:
    number, plain = {"type": "integer"}, {"type": "string", "default": {"type": "integer"}}
    schema = {
        "properties": {"a": number, "b": plain},
        "items": [number, True],
        "anyOf": [{"items": number}],
        "$defs": {"x": number},
        "enum_values": number,
    }
    assert bounded(schema) == {
        "properties": {"a": {**number, **WHOLE}, "b": plain},
        "items": [{**number, **WHOLE}, True],
        "anyOf": [{"items": {**number, **WHOLE}}],
        "$defs": {"x": {**number, **WHOLE}},
        "enum_values": number,
    }
    assert schema["properties"] == {"a": {"type": "integer"}, "b": plain}
