"""Random JSON schemas of the kinds that callers send, and the default model's documents."""

import json
from random import Random
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator

from tests.server import Server

NUM_SCHEMAS = 50
WORDS = ("name", "size", "color", "price", "owner", "tags", "origin", "rank", "notes", "parts")


class Schemas:
    """A maker of random schemas: nested objects, enums, numbers, bounded strings and arrays,
    references, optional fields."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._defs: dict[str, Any] = {}

    def root(self) -> dict[str, Any]:
        """A schema of an object."""
        self._defs = {
            "label": {"type": "string", "minLength": 1, "maxLength": 12},
            "point": {
                "type": "object",
                "properties": {"x": self._number(), "y": self._number()},
                "required": ["x", "y"],
                "additionalProperties": False,
            },
        }
        return {**self._object(2), "$defs": self._defs}

    def _any(self, depth: int) -> dict[str, Any]:
        kinds = [self._enum, self._number, self._string, self._reference, self._plain]
        if depth:
            kinds += [lambda: self._object(depth - 1), lambda: self._array(depth - 1)]
        return self._random.choice(kinds)()

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._random.sample(WORDS, self._random.randint(1, 4))
        required = [n for n in names if self._random.random() < 0.6]
        return {
            "type": "object",
            "properties": {n: self._any(depth) for n in names},
            "required": required,
            "additionalProperties": False,
        }

    def _array(self, depth: int) -> dict[str, Any]:
        least = self._random.randint(0, 1)
        return {
            "type": "array",
            "items": self._any(depth),
            "minItems": least,
            "maxItems": least + self._random.randint(1, 2),
        }

    def _enum(self) -> dict[str, Any]:
        values: list[Any] = self._random.choice(
            [["red", "green", "blue"], [1, 2, 3], ["a b", 'say "x"', "é"], [None, True, "maybe"]]
        )
        return self._random.choice([{"enum": values}, {"const": values[0]}])

    def _number(self) -> dict[str, Any]:
        return self._random.choice(
            [
                {"type": "integer"},
                {"type": "number"},
                {"type": "integer", "minimum": -5, "maximum": 120},
                {"type": "number", "minimum": 0, "exclusiveMaximum": 10},
            ]
        )

    def _string(self) -> dict[str, Any]:
        return self._random.choice(
            [
                {"type": "string", "maxLength": 16},
                {"type": "string", "minLength": 2, "maxLength": 10},
                {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
                {"type": "string", "format": "date"},
            ]
        )

    def _plain(self) -> dict[str, Any]:
        return self._random.choice([{"type": "boolean"}, {"type": ["integer", "null"]}])

    def _reference(self) -> dict[str, Any]:
        return {"$ref": "#/$defs/" + self._random.choice(sorted(self._defs) or ["label"])}


def document(server: Server, schema: dict[str, Any], seed: int) -> tuple[str, str]:
    """What the model fills in, and why it ended."""
    form: Any = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        choice = client.chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Describe a thing in JSON."}],
            response_format=form,
            seed=seed,
            max_tokens=600,
        ).choices[0]
    return choice.message.content or "", choice.finish_reason


def check(server: Server, number: int) -> None:
    """One random schema, one valid document."""
    schema = Schemas(number).root()
    content, reason = document(server, schema, number)
    assert reason == "stop", (schema, content)
    Draft202012Validator(schema).validate(json.loads(content))


@pytest.mark.parametrize("number", range(3))
def test_a_document_is_valid(server: Server, number: int) -> None:
    check(server, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3, NUM_SCHEMAS))
def test_all_documents_are_valid(server: Server, number: int) -> None:
    check(server, number)
