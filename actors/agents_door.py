"""``/v1/agents``: agents by name, what is said to them, and what can be done with their memory."""

from typing import Literal

import msgspec
from aiohttp import web
from aiohttp.web import Request

from greenroom.actors.agents_requests import (
    SayBody,
    read_fork,
    read_hear,
    read_page,
    read_pin,
    read_rollback,
    read_say,
    read_spawn,
)
from greenroom.actors.answers import HEAD_HEADER, json_answer
from greenroom.actors.frames import failed
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import AGENT_HEADER, named
from greenroom.actors.ongoing import opened
from greenroom.actors.problems import Problem
from greenroom.actors.sse import CACHED_HEADER, framed, streaming
from greenroom.actors.telling import Teller
from greenroom.runtime.agent_records import AgentInfo, Forgotten, Heard, LogEntry, Probe
from greenroom.runtime.records import (
    FinishReason,
    Timings,
    ToolCall,
    TurnDone,
    TurnEvent,
    TurnRequest,
    Usage,
)


class AgentList(msgspec.Struct, frozen=True):
    """Agents by name; ``has_more`` behind the last of them."""

    data: list[AgentInfo]
    has_more: bool
    object: Literal["list"] = "list"


class Answered(msgspec.Struct, frozen=True):
    """A whole answer; ``head`` is where the agent stands now."""

    agent: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None
    notices: tuple[str, ...]
    reasoning: str
    tool_calls: tuple[ToolCall, ...]


class Log(msgspec.Struct, frozen=True):
    """The segments of an agent's memory, oldest first."""

    data: tuple[LogEntry, ...]
    object: Literal["list"] = "list"


class Pinned(msgspec.Struct, frozen=True):
    """The segment that is pinned now, or is not any more."""

    segment: str


class Deleted(msgspec.Struct, frozen=True):
    """What has been erased with an agent."""

    name: str
    erased: Forgotten
    deleted: bool = True


class AgentsDoor:
    """The handlers for agents in front of one house. Each raises what the house does."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def spawn(self, request: Request) -> web.Response:
        """Find or make an agent."""
        wanted = read_spawn(await request.read(), namespace=request[NAMESPACE])
        return json_answer(await self._house.spawn(wanted))

    async def list(self, request: Request) -> web.Response:
        """A page of the caller's agents, by name."""
        page = read_page(dict(request.query))
        everybody = await self._house.agents(request[NAMESPACE])
        found = [a for a in everybody if a.name.startswith(page.prefix) and a.name > page.after]
        return json_answer(AgentList(found[: page.limit], len(found) > page.limit))

    async def find(self, request: Request) -> web.Response:
        """What is known of an agent, without waking it."""
        return json_answer(await self._house.find(*_whose(request)))

    async def delete(self, request: Request) -> web.Response:
        """Forget an agent, and erase what nobody else needs."""
        namespace, agent = _whose(request)
        return json_answer(Deleted(agent, await self._house.forget(namespace, agent)))

    async def say(self, request: Request) -> web.StreamResponse:
        """Take a turn: one JSON document, or server-sent events with the WebSocket's frames."""
        namespace, agent = _whose(request)
        said, turn = read_say(await request.read(), agent=agent, namespace=namespace)
        if said.stream:
            return await self._stream(request, said, turn, agent)
        async with opened(self._house, turn) as ongoing:
            done = await ongoing.done()
        return json_answer(_answered(done), headers=_told(done))

    async def hear(self, request: Request) -> web.Response:
        """Tell an agent something; it is taken in later."""
        namespace, agent = _whose(request)
        await self._house.hear(read_hear(await request.read(), agent=agent, namespace=namespace))
        heard = await self._house.heard(namespace, agent, settled=False)
        return json_answer(heard, status=202)

    async def heard(self, request: Request) -> web.Response:
        """How far an agent has got with what it was told; ``settled=true`` waits for all of it."""
        settled = request.query.get("settled", "false").lower() in ("true", "1")
        heard: Heard = await self._house.heard(*_whose(request), settled=settled)
        return json_answer(heard)

    async def fork(self, request: Request) -> web.Response:
        """Give a new agent the memory of this one."""
        name, at = read_fork(await request.read())
        return json_answer(await self._house.fork(*_whose(request), name, at), status=201)

    async def rollback(self, request: Request) -> web.Response:
        """Take an agent back to a segment of its memory."""
        to = read_rollback(await request.read())
        return json_answer(await self._house.rollback(*_whose(request), to))

    async def log(self, request: Request) -> web.Response:
        """What an agent's memory consists of."""
        return json_answer(Log(await self._house.log(*_whose(request))))

    async def pin(self, request: Request) -> web.Response:
        """Keep a segment, whatever room is needed."""
        segment = read_pin(await request.read())
        return json_answer(Pinned(await self._house.pin(*_whose(request), segment)))

    async def unpin(self, request: Request) -> web.Response:
        """Keep a segment no more than any other."""
        segment = read_pin(await request.read())
        return json_answer(Pinned(await self._house.unpin(*_whose(request), segment)))

    async def probe(self, request: Request) -> web.Response:
        """What a ``say`` would find in memory; nothing runs."""
        namespace, agent = _whose(request)
        _, turn = read_say(await request.read(), agent=agent, namespace=namespace)
        probe: Probe = await self._house.probe(turn)
        return json_answer(probe)

    # --

    async def _stream(
        self, request: Request, said: SayBody, turn: TurnRequest, agent: str
    ) -> web.StreamResponse:
        def broken(told: Problem) -> bytes:
            return framed(msgspec.json.encode(failed(told, None, agent)), "error")

        async with (
            streaming(request, self._house.settings.server, broken) as stream,
            opened(self._house, turn) as ongoing,
        ):
            started = ongoing.started
            await stream.open(
                {AGENT_HEADER: started.agent, CACHED_HEADER: str(started.cached_tokens)}
            )
            teller = Teller(None, agent, progress=said.progress)
            await stream.send(_events(teller, started))
            async for happened in ongoing.events():
                if data := _events(teller, happened):
                    await stream.send(data)
        return stream.response


def _events(teller: Teller, happened: TurnEvent) -> bytes:
    frames = [msgspec.to_builtins(frame) for frame in teller.tell(happened)]
    return b"".join(framed(msgspec.json.encode(frame), frame["type"]) for frame in frames)


def _whose(request: Request) -> tuple[str, str]:
    """The caller's namespace, and the agent in the path."""
    return request[NAMESPACE], named(request.match_info["name"], "name")


def _answered(done: TurnDone) -> Answered:
    return Answered(
        done.agent,
        done.text,
        done.finish_reason,
        done.usage,
        done.timings,
        done.head,
        done.notices,
        done.reasoning,
        done.tool_calls,
    )


def _told(done: TurnDone) -> dict[str, str]:
    headers = {AGENT_HEADER: done.agent, CACHED_HEADER: str(done.usage.cached_tokens)}
    return headers if done.head is None else {**headers, HEAD_HEADER: done.head}
