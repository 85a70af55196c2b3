"""An agent as Python sees it: a name in a house, and what can be done with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, overload

from msgspec.structs import replace

from greenroom.actors.reach import Reach
from greenroom.actors.reply import Reply, Shaped, Stream, shaped
from greenroom.actors.shapes import Shape
from greenroom.actors.toolloop import ToolBounds, perform
from greenroom.actors.tools import AnyTool, Toolbox
from greenroom.runtime.agent_records import (
    AgentInfo,
    Forgotten,
    Heard,
    HearRequest,
    LogEntry,
    Probe,
)
from greenroom.runtime.constraint import Constraint, ForcedCalls, JsonAnswer
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import ChatMessage, Priority, Sampling, Tool, TurnRequest

T = TypeVar("T")
Said = str | Sequence[ChatMessage]
"""What is said in one turn: a user's words, or several messages."""


class TurnOptions(TypedDict, total=False):
    """How an answer is made; all of it may be left out.

    ``max_tokens``: at most so many (else as many as the context window leaves). ``stop``: up to
    four strings that end the answer and are not part of it. ``temperature``: 0 is greedy; it goes
    before the one in ``sampling``, which says how tokens are drawn. ``tools``: async functions that
    the model may have called, within ``bounds``; ``tool_choice``: "auto", "none", "required" or
    the name of the one to call first. ``template_kwargs``: variables of the model's chat template.
    Under one ``key`` a thing is said once, however often it is sent. ``priority``: "high", "normal"
    or "low", a head start while several prompts wait for the model, or leave to go before.
    """

    max_tokens: int | None
    stop: Sequence[str]
    temperature: float | None
    sampling: Sampling
    tools: Sequence[AnyTool]
    bounds: ToolBounds
    tool_choice: str
    template_kwargs: Mapping[str, Any]
    key: str | None
    priority: Priority


class Agent:
    """A named agent of a room. It is only a name: any number of these may stand for one agent.

    Turns of one agent follow each other, those of different agents run together. Every method
    raises NotFound when the agent is not there (any more), except ``say``, ``stream`` and ``hear``,
    which bring it into being; and Unavailable when the house cannot take it now, or has gone.
    """

    def __init__(self, house: Reach, name: str) -> None:
        self._house = house
        self.name = name

    def __repr__(self) -> str:
        return f"Agent({self.name!r})"

    @overload
    async def say(self, content: Said, **options: Unpack[TurnOptions]) -> Reply: ...

    @overload
    async def say(
        self, content: Said, *, schema: type[T], **options: Unpack[TurnOptions]
    ) -> Shaped[T]: ...

    async def say(
        self, content: Said, *, schema: type[T] | None = None, **options: Unpack[TurnOptions]
    ) -> Reply | Shaped[T]:
        """Say something and wait for the whole answer, which is durable when this returns.

        With a ``schema`` (a msgspec Struct, a dataclass, a pydantic model, ...) the answer is JSON
        of that type, and comes as ``value`` too; tools cannot be called then. Cancelling
        (``asyncio.timeout``, ...) ends the turn, which is then not remembered. Raises
        InvalidRequest (the prompt does not fit, ...), MailboxFull and other Unavailable errors (try
        again), AnswerIncomplete, AnswerRejected, ToolRoundsExceeded.
        """
        if schema is None:
            return await self._stream(content, options, None).whole()
        shape = Shape(schema)
        answer = JsonAnswer(shape.schema, "schema")
        return shaped(await self._stream(content, options, answer).whole(), shape.read)

    def stream(self, content: Said, **options: Unpack[TurnOptions]) -> Stream:
        """Say something and get the answer as it comes; see ``Stream``. Raises as ``say``."""
        return self._stream(content, options, None)

    async def hear(self, content: str, *, name: str | None = None) -> None:
        """Tell it something that it need not answer; returns at once.

        It is taken in in the background, so that the next answer begins as soon as if it had been
        known all along. ``name`` is whose words these are. Until it is durable (``heard``) a crash
        may lose it. Raises InvalidRequest (empty, longer than the context window), MailboxFull.
        """
        space = self._house.namespace
        await self._house.hear(
            HearRequest(agent=self.name, content=content, name=name, namespace=space)
        )

    async def heard(self, *, settled: bool = True) -> Heard:
        """Wait until all that it was told is durable; without ``settled`` just see how far it is.

        Raises InvalidRequest when something did not fit the context window and was dropped.
        """
        return await self._house.heard(self._house.namespace, self.name, settled=settled)

    async def info(self) -> AgentInfo:
        """What is known of it without waking it."""
        return await self._house.find(self._house.namespace, self.name)

    async def fork(self, name: str, *, at: str | None = None) -> Agent:
        """A new agent that remembers the same, now or as it was ``at`` a segment of its log.

        Nothing is copied: both go on from the same memory. Waits for the turns that came before.
        Raises Conflict when the name is taken, NotFound for a segment that is not in its log.
        """
        info = await self._house.fork(self._house.namespace, self.name, name, at)
        return Agent(self._house, info.name)

    async def rollback(self, to: str) -> AgentInfo:
        """Take it back to a segment of its ``log``, by id or by an unambiguous beginning of it.

        What came later stays in the store as long as something needs it (a fork, a pin).
        """
        return await self._house.rollback(self._house.namespace, self.name, to)

    async def log(self) -> tuple[LogEntry, ...]:
        """Its memory, segment by segment, oldest first."""
        return await self._house.log(self._house.namespace, self.name)

    async def pin(self, segment: str | None = None) -> str:
        """Keep a segment (where it stands now) from eviction and collection; the segment's id."""
        return await self._house.pin(self._house.namespace, self.name, segment)

    async def unpin(self, segment: str | None = None) -> str:
        """Let go of a pin; the segment's id."""
        return await self._house.unpin(self._house.namespace, self.name, segment)

    async def probe(self, content: Said) -> Probe:
        """How many tokens a turn's prompt would have and how many of them are remembered.

        Runs nothing. Raises InvalidRequest when the prompt does not fit.
        """
        return await self._house.probe(self._request(content, {}))

    async def forget(self) -> Forgotten:
        """Erase the agent, and all that nobody else's memory needs."""
        return await self._house.forget(self._house.namespace, self.name)

    def export(self) -> AsyncIterator[bytes]:
        """The agent and its memory as one file, in pieces, for ``Room.import_agent``."""
        return self._house.export(self._house.namespace, self.name)

    async def export_to(self, path: str | Path) -> Path:
        """Write that file; what was at ``path`` is replaced once it is complete."""
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.part")
        file = await asyncio.to_thread(unfinished.open, "wb")
        try:
            try:
                async for chunk in self.export():
                    await asyncio.to_thread(file.write, chunk)
            finally:
                await asyncio.to_thread(file.close)
            await asyncio.to_thread(os.replace, unfinished, path)
        finally:
            await asyncio.to_thread(unfinished.unlink, missing_ok=True)
        return path

    def _stream(self, content: Said, options: TurnOptions, constraint: Constraint | None) -> Stream:
        toolbox = Toolbox(options.get("tools", ()))
        request = self._request(content, options, toolbox.specs, constraint)
        bounds = options.get("bounds", ToolBounds())
        return Stream(partial(perform, self._house, request, toolbox, bounds))

    def _request(
        self,
        content: Said,
        options: TurnOptions,
        tools: tuple[Tool, ...] = (),
        constraint: Constraint | None = None,
    ) -> TurnRequest:
        sampling = options.get("sampling", Sampling())
        if (temperature := options.get("temperature")) is not None:
            sampling = replace(sampling, temperature=temperature)
        choice = options.get("tool_choice", "auto")
        if choice not in ("auto", "none"):
            constraint = constraint or _forced(choice, tools)
        return TurnRequest(
            messages=(ChatMessage("user", content),)
            if isinstance(content, str)
            else tuple(content),
            mode="say",
            agent=self.name,
            namespace=self._house.namespace,
            max_tokens=options.get("max_tokens"),
            stop=tuple(options.get("stop", ())),
            sampling=sampling,
            tools=tools,
            template_kwargs=options.get("template_kwargs", {}),
            key=options.get("key"),
            priority=options.get("priority", "normal"),
            may_call=choice != "none",
            constraint=constraint,
        )


def _forced(choice: str, tools: tuple[Tool, ...]) -> ForcedCalls:
    if choice == "required" and tools:
        return ForcedCalls(many=True)
    if choice not in {tool.name for tool in tools}:
        raise InvalidRequest(
            f"There is no tool {choice!r} to choose.", param="tool_choice", code="invalid_value"
        )
    return ForcedCalls(choice)
