"""Calls that are forced, from Python, near and far: the default model calls right where it must."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from greenroom.actors.handle import Agent, TurnOptions
from greenroom.actors.tools import FunctionTool
from greenroom.runtime.records import ChatMessage
from tests.rooms import Rooms

Digit = Annotated[int, msgspec.Meta(ge=0, le=99)]
GREEDY = TurnOptions(temperature=0, max_tokens=60)


async def add(a: Digit, b: Digit) -> int:
    """Add two numbers."""
    return a + b


async def weather(city: Annotated[str, msgspec.Meta(max_length=20)]) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Iterator[Rooms]:
    rooms = Rooms(tmp_path_factory.mktemp("forced"), default_model_path)
    yield rooms
    rooms.close()


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_the_chosen_tool_is_called_once_and_then_the_model_answers(rooms: Rooms, kind: str) -> None:
    async def scenario(bob: Agent) -> None:
        chosen = TurnOptions(tools=[weather, add], tool_choice="add", **GREEDY)
        reply = await bob.say("What is 17 + 4?", **chosen)
        (run,) = reply.tool_runs
        assert (run.call.name, run.failed) == ("add", False)
        assert msgspec.json.decode(run.call.arguments).keys() == {"a", "b"}
        assert reply.text.strip()
        assert reply.finish_reason in ("stop", "length")

    rooms.run(scenario(rooms.room(kind).agent(f"chosen-{kind}")))


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_some_tool_is_called_where_one_must_be_and_none_where_none_may(
    rooms: Rooms, kind: str
) -> None:
    async def scenario(bob: Agent) -> None:
        must = TurnOptions(tools=[weather], tool_choice="required", **GREEDY)
        reply = await bob.say("How is the weather in Paris?", **must)
        assert [(run.call.name, run.failed) for run in reply.tool_runs[:1]] == [("weather", False)]
        may_not = TurnOptions(tools=[weather], tool_choice="none", **GREEDY)
        reply = await bob.say("And in Rome?", **may_not)
        assert (reply.tool_runs, reply.tool_calls) == ((), ())

    rooms.run(scenario(rooms.room(kind).agent(f"must-{kind}")))


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_call_that_is_left_to_the_caller(rooms: Rooms, kind: str) -> None:
    async def scenario(bob: Agent) -> None:
        spec = FunctionTool(weather).spec
        asked = TurnOptions(tools=[spec], tool_choice="weather", **GREEDY)
        reply = await bob.say("How is the weather in Paris?", **asked)
        (call,) = reply.tool_calls
        assert (reply.finish_reason, call.name) == ("tool_calls", "weather")
        told = ChatMessage("tool", "It snows.", tool_call_id=call.id)
        assert (await bob.say([told], **GREEDY)).text.strip()

    rooms.run(scenario(rooms.room(kind).agent(f"left-{kind}")))
