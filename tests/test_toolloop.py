"""A turn with tools: each way in which a tool or a model can go on, or go wrong."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from greenroom.actors.reply import Reply, Stream
from greenroom.actors.toolloop import ToolBounds, ToolRoundsExceeded, ToolRun, perform
from greenroom.actors.tools import AnyTool, Toolbox
from greenroom.runtime import testkit
from greenroom.runtime.records import ChatMessage, Tool, TurnDone, TurnRequest
from tests.house import DONE
from tests.script import Scripted, calling

SAID = TurnRequest(messages=(ChatMessage("user", "Hello"),), mode="say", agent="alice")


def spoken(house: Scripted, *tools: AnyTool, bounds: ToolBounds | None = None) -> Reply:
    """The reply of a house to "Hello", on a loop whose time is virtual."""
    stream = Stream(lambda: perform(house, SAID, Toolbox(tools), bounds or ToolBounds()))
    return testkit.run(stream.whole)


def told(house: Scripted) -> list[ChatMessage]:
    """What the model was told in each round after the first."""
    return [message for request in house.requests[1:] for message in request.messages]


async def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


def test_the_tool_runs_and_the_model_is_told() -> None:
    house = Scripted(calling("double", '{"n": 21}', "c1"), DONE)
    reply = spoken(house, double)
    assert told(house) == [ChatMessage("tool", "42", "double", tool_call_id="c1")]
    assert [spec.name for spec in house.requests[1].tools] == ["double"]
    (run,) = reply.tool_runs
    assert (run.result, run.failed, run.call.id) == ("42", False, "c1")
    assert (reply.text, reply.tool_calls) == (DONE.text, ())


def failing_tools() -> list[tuple[AnyTool, str]]:
    async def raises() -> str:
        raise ZeroDivisionError("by zero")

    async def hangs() -> str:
        await asyncio.get_running_loop().create_future()
        return ""

    async def clings() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(50)  # ends some day, and nobody waits for that
        return ""

    async def rubbish() -> object:
        return object()

    return [
        (raises, "Error: raises failed with ZeroDivisionError: by zero"),
        (hangs, "Error: hangs did not answer within 30 s."),
        (clings, "Error: clings did not answer within 30 s."),
        (rubbish, "Error: rubbish ran, but its result cannot be told"),
    ]


@pytest.mark.parametrize(("tool", "words"), failing_tools())
def test_a_tool_that_fails_is_told_and_the_turn_goes_on(
    tool: Callable[[], Coroutine[Any, Any, object]], words: str
) -> None:
    house = Scripted(calling(tool.__name__), DONE)
    reply = spoken(house, tool)
    assert reply.text == DONE.text
    assert told(house)[0].content.startswith(words)
    assert reply.tool_runs[0].failed


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (calling("triple"), "Error: there is no tool 'triple'; there are: double."),
        (calling("double", '{"n": "x"}'), "Error: double was not called: Expected `int`"),
        (calling("double", "{"), "Error: double was not called"),
    ],
)
def test_a_model_that_calls_wrongly_is_told(call: TurnDone, words: str) -> None:
    house = Scripted(call, DONE)
    assert spoken(house, double).text == DONE.text
    assert told(house)[0].content.startswith(words)


def test_a_model_that_never_answers_is_stopped() -> None:
    house = Scripted(calling("double", '{"n": 1}'))
    with pytest.raises(ToolRoundsExceeded, match="3 times") as exceeded:
        spoken(house, double, bounds=ToolBounds(max_rounds=3))
    assert len(house.requests) == 4
    assert exceeded.value.done.tool_calls


def test_a_long_result_is_cut() -> None:
    async def talk() -> str:
        return "x" * 1000

    house = Scripted(calling("talk"), DONE)
    spoken(house, talk, bounds=ToolBounds(max_chars=10))
    assert told(house)[0].content == "xxxxxxxxxx… (the rest of 1000 characters is cut)"


def test_a_call_for_somebody_else_ends_the_turn() -> None:
    house = Scripted(calling("lamp"))
    reply = spoken(house, double, Tool("lamp"))
    assert [call.name for call in reply.tool_calls] == ["lamp"]
    assert len(house.requests) == 1


def test_leaving_cancels_the_tool_that_runs() -> None:
    async def scenario() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            began.set()
            try:
                await asyncio.sleep(1000)
            finally:
                ended.set()
            return ""

        house = Scripted(calling("slow"), DONE)
        events = perform(house, SAID, Toolbox([slow]), ToolBounds(timeout_s=5000))

        async def read() -> None:
            async with aclosing(events):
                async for event in events:
                    assert not isinstance(event, ToolRun)

        reading = asyncio.ensure_future(read())
        await began.wait()
        reading.cancel()
        await asyncio.wait([reading])
        assert ended.is_set()
        assert len(house.requests) == 1

    testkit.run(scenario)
