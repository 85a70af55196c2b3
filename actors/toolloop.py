"""A turn with tools: the model asks, the tools run, the model is told, until it has answered."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator

import msgspec

from greenroom.actors.ongoing import Turns, opened
from greenroom.actors.tools import Toolbox, ToolRefusal
from greenroom.runtime.errors import GreenroomError
from greenroom.runtime.records import ChatMessage, ToolCall, TurnDone, TurnEvent, TurnRequest

log = logging.getLogger("greenroom.tools")

LET_GO_S = 1.0
"""Seconds that a tool has to end once it has been cancelled; then it is left behind."""


class ToolBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far a turn with tools may go.

    ``max_rounds`` times the model may ask for tools, each of which has ``timeout_s`` seconds and is
    told with at most ``max_chars`` characters of its result.
    """

    max_rounds: int = 8
    timeout_s: float = 30.0
    max_chars: int = 16_384


class ToolRun(msgspec.Struct, frozen=True, tag=True):
    """A tool that was run for the model, which was told ``result``.

    ``failed``: it raised, took too long, could not be called so, or gave what cannot be told.
    """

    call: ToolCall
    result: str
    failed: bool
    duration_ms: float


class ToolRoundsExceeded(GreenroomError):
    """The model went on asking for tools: ``done`` is the last turn, whose calls were not run."""

    def __init__(self, done: TurnDone, max_rounds: int) -> None:
        super().__init__(
            f"{done.agent} has asked for tools {max_rounds} times and still does not answer"
        )
        self.done = done


async def perform(
    house: Turns, request: TurnRequest, toolbox: Toolbox, bounds: ToolBounds
) -> AsyncGenerator[TurnEvent | ToolRun]:
    """All events of a turn with tools: those of each round, and between them what tools did.

    The tools that the model asks for at once run at once. Raises ToolRoundsExceeded, and as
    ``opened``. Leaving cancels what runs, a turn or tools.
    """
    request = msgspec.structs.replace(request, tools=toolbox.specs)
    for rounds in itertools.count():
        async with opened(house, request) as turn:
            yield turn.started
            async for event in turn.events():
                yield event
                if isinstance(event, TurnDone):
                    done = event
        if not toolbox.can_run(done.tool_calls):
            return
        if rounds == bounds.max_rounds:
            raise ToolRoundsExceeded(done, rounds)
        told: list[ChatMessage] = []
        for run in await _run_all(toolbox, done.tool_calls, bounds):
            yield run
            told.append(ChatMessage("tool", run.result, run.call.name, tool_call_id=run.call.id))
        # A call that was forced has been made: forced again, it would never come to an answer.
        request = msgspec.structs.replace(request, messages=tuple(told), constraint=None, key=None)


async def _run_all(
    toolbox: Toolbox, calls: tuple[ToolCall, ...], bounds: ToolBounds
) -> list[ToolRun]:
    """Run them together; the runs in the order of the calls. None of them raises."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_run(toolbox, call, bounds)) for call in calls]
    return [task.result() for task in tasks]


async def _run(toolbox: Toolbox, call: ToolCall, bounds: ToolBounds) -> ToolRun:
    begun = time.perf_counter()
    failed = True
    try:
        result = await _within(bounds.timeout_s, toolbox, call)
        failed = False
    except ToolRefusal as error:
        result = f"Error: {error}."
    except Exception as error:  # a tool's own failure is told to the model, and the turn goes on
        log.warning("the tool %s failed", call.name, exc_info=error)
        result = f"Error: {call.name} failed with {type(error).__name__}: {error}"
    if len(result) > bounds.max_chars:
        result = f"{result[: bounds.max_chars]}… (the rest of {len(result)} characters is cut)"
    return ToolRun(call, result, failed, (time.perf_counter() - begun) * 1e3)


async def _within(timeout_s: float, toolbox: Toolbox, call: ToolCall) -> str:
    """Run a tool for so long at most, even one that does not let itself be cancelled."""
    work = asyncio.create_task(toolbox.run(call.name, call.arguments))
    try:
        await asyncio.wait([work], timeout=timeout_s)
        if work.done():
            return work.result()
        raise ToolRefusal(f"{call.name} did not answer within {timeout_s:g} s")
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait([work], timeout=LET_GO_S)
            if not work.done():
                log.error("the tool %s does not end though cancelled: it is left behind", call.name)
