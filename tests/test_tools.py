"""Tools: what the model is told of a function, and what a function is given by the model."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pytest

from greenroom.actors.tools import FunctionTool, Toolbox, ToolRefusal
from greenroom.runtime.records import Tool, ToolCall

Celsius = Annotated[float, msgspec.Meta(description="degrees Celsius", ge=-273.15)]


@dataclass
class Place:
    city: str
    country: str = "France"


async def weather(
    place: Place,
    days: Annotated[int, msgspec.Meta(ge=1, le=7)] = 1,
    *,
    unit: Literal["C", "F"] = "C",
) -> dict[str, object]:
    """The weather of the next days."""
    return {"city": place.city, "country": place.country, "days": days, "unit": unit}


def run(tool: FunctionTool, arguments: str) -> str:
    return asyncio.run(tool.run(arguments))


def test_the_schema_comes_from_the_hints() -> None:
    spec = FunctionTool(weather).spec
    assert (spec.name, spec.description) == ("weather", "The weather of the next days.")
    assert spec.parameters["type"] == "object"
    assert spec.parameters["required"] == ["place"]
    assert spec.parameters["additionalProperties"] is False
    properties: Any = spec.parameters["properties"]
    assert properties["days"] == {"type": "integer", "minimum": 1, "maximum": 7, "default": 1}
    assert properties["unit"] == {"enum": ["C", "F"], "default": "C"}
    assert properties["place"] == {"$ref": "#/$defs/Place"}
    definitions: Any = spec.parameters["$defs"]
    assert definitions["Place"]["required"] == ["city"]


def test_arguments_become_what_the_hints_say() -> None:
    told = run(FunctionTool(weather), '{"place": {"city": "Paris"}, "unit": "F"}')
    assert msgspec.json.decode(told) == {
        "city": "Paris",
        "country": "France",
        "days": 1,
        "unit": "F",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('{"place": {"city": 3}}', "Expected `str`, got `int` - at `$.place.city`"),
        ('{"place": {"city": "Paris"}, "days": 9}', "`int` <= 7"),
        ('{"place": {"city": "Paris"}, "day": 2}', "unknown field `day`"),
        ("{}", "missing required field `place`"),
        ("paris", "malformed"),
        ("", "missing required field `place`"),
    ],
)
def test_what_the_model_gets_wrong_is_told_to_it(arguments: str, words: str) -> None:
    with pytest.raises(ToolRefusal, match="weather was not called") as refusal:
        run(FunctionTool(weather), arguments)
    assert words in str(refusal.value)


def test_text_is_told_as_it_is_and_rubbish_not_at_all() -> None:
    async def text() -> str:
        return "plain"

    async def rubbish() -> object:
        return object()

    async def nothing() -> None: ...

    assert run(FunctionTool(text), "") == "plain"
    assert run(FunctionTool(nothing), "{}") == "null"
    with pytest.raises(ToolRefusal, match="cannot be told"):
        run(FunctionTool(rubbish), "{}")


def test_a_mutable_default_is_fresh_every_time() -> None:
    empty: list[int] = []

    async def add(item: int, basket: list[int] = empty) -> list[int]:
        basket.append(item)
        return basket

    tool = FunctionTool(add)
    assert [run(tool, '{"item": 1}'), run(tool, '{"item": 2}')] == ["[1]", "[2]"]


def test_what_cannot_be_a_tool() -> None:
    def plain(x: int) -> int:
        return x

    namespace: dict[str, Any] = {}
    exec("async def untyped(x): return x", namespace)

    async def many(*xs: int) -> int:
        return len(xs)

    refused: list[tuple[Any, str]] = [
        (plain, "not an async function"),
        (namespace["untyped"], "no type hint"),
        (many, "arguments have names"),
    ]
    for function, words in refused:
        with pytest.raises(TypeError, match=words):
            FunctionTool(function)
    with pytest.raises(TypeError, match="two tools"):
        Toolbox([weather, weather])


def test_a_tool_that_is_run_elsewhere() -> None:
    toolbox = Toolbox([weather, Tool("lamp")])
    here, there = ToolCall("1", "weather", "{}"), ToolCall("2", "lamp", "{}")
    assert [spec.name for spec in toolbox.specs] == ["weather", "lamp"]
    assert toolbox.can_run([here])
    assert not toolbox.can_run([here, there])
    assert not toolbox.can_run([])
    assert toolbox.can_run([ToolCall("3", "unheard_of", "{}")])
    with pytest.raises(ToolRefusal, match=r"no tool 'unheard_of'; there are: weather, lamp"):
        asyncio.run(toolbox.run("unheard_of", "{}"))
