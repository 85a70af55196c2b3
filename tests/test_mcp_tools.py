"""Tools of a real MCP server, spoken to over its standard input and output."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from greenroom.actors.mcp_tools import mcp_tools
from greenroom.actors.reply import Reply, Stream
from greenroom.actors.toolloop import ToolBounds, perform
from greenroom.actors.tools import Runnable, Toolbox, ToolRefusal
from greenroom.runtime.errors import Unavailable
from tests.house import DONE
from tests.script import Scripted, calling
from tests.server import ROOT
from tests.test_toolloop import SAID, told

SERVER = [sys.executable, "-m", "tests.clock_server"]


@asynccontextmanager
async def tools(**options: Any) -> AsyncIterator[dict[str, Runnable]]:
    async with (
        asyncio.timeout(60),
        mcp_tools(SERVER, env={"PYTHONPATH": str(ROOT)}, **options) as given,
    ):
        yield {tool.spec.name: tool for tool in given}


def test_what_the_server_offers_can_be_run() -> None:
    async def scenario() -> None:
        async with tools() as clock:
            assert sorted(clock) == ["dial", "die", "time_in", "wait"]
            spec = clock["time_in"].spec
            assert spec.description == "What time it is in a city."
            assert spec.parameters["required"] == ["city"]
            assert await clock["time_in"].run('{"city": "Rome", "hours": 3}') == "15:00 in Rome"
            assert await clock["dial"].run("") == "(image)"
            for arguments, words in (
                ('{"city": "Atlantis"}', "Atlantis has sunk"),
                ('{"town": "Rome"}', "city"),
                ("{", "was not called"),
            ):
                with pytest.raises(ToolRefusal, match=words):
                    await clock["time_in"].run(arguments)

    asyncio.run(scenario())


def test_a_turn_with_a_servers_tools() -> None:
    """Also with one that hangs, and a server that dies: the model is told, the turn goes on."""

    async def spoken(house: Scripted, clock: dict[str, Runnable], timeout_s: float) -> Reply:
        box, bounds = Toolbox(list(clock.values())), ToolBounds(timeout_s=timeout_s)
        return await Stream(lambda: perform(house, SAID, box, bounds)).whole()

    async def scenario() -> None:
        async with tools(only=("time_in", "wait", "die")) as clock:
            assert "dial" not in clock
            for call, words in (
                (calling("time_in", '{"city": "Rome"}'), "12:00 in Rome"),
                (calling("wait"), "Error: wait did not answer within 0.2 s."),
                (calling("die"), "Error: die failed"),
                (calling("time_in", '{"city": "Rome"}'), "Error: time_in failed"),
            ):
                house = Scripted(call, DONE)
                patience = 0.2 if "wait" in words else 30
                assert (await spoken(house, clock, patience)).text == DONE.text
                assert told(house)[0].content.startswith(words), told(house)

    asyncio.run(scenario())


def test_a_server_that_is_not_there() -> None:
    async def scenario(server: Any) -> None:
        async with asyncio.timeout(60), mcp_tools(server):
            pass

    for server in (["/nowhere/server"], [sys.executable, "-c", "pass"], "http://127.0.0.1:9/mcp"):
        with pytest.raises(Unavailable, match="cannot be reached"):
            asyncio.run(scenario(server))
