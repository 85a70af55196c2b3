"""The three doors of one real house: the default model behind real sockets."""

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.actors.room import Room
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import (
    AgentInfo,
    ChatMessage,
    Sampling,
    TextDelta,
    TurnDone,
    TurnRequest,
)
from tests.server import make_home

SYSTEM = "You are Alice. You answer every question in one short sentence."
# Chunks small enough that a short prompt takes several steps; channels that are nearly always full.
SMALL_STEPS = {
    "stage.schedule": "fixed",
    "stage.chunk_tokens": "64",
    "actors.channel_capacity": "2",
}
GREEDY = Sampling(temperature=0)
LONG = " ".join(f"Clock {n} stands in room {n % 7} and is wound on day {n % 5}." for n in range(20))


class Stage:
    """One house for all tests of this module, with an event loop that lives as long."""

    def __init__(self, home: Path) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._doors = AsyncExitStack()
        self._settings = load_settings(overrides={"home": str(home), **SMALL_STEPS}).settings
        self.run(self._open())

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        self._runner.run(scenario)

    def close(self) -> None:
        self.run(self._doors.aclose())
        self._runner.close()

    async def _open(self) -> None:
        self.house = await self._doors.enter_async_context(open_house(self._settings))
        self.url = await self._doors.enter_async_context(serve_http(self.house, "127.0.0.1", 0))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(make_home(tmp_path_factory.mktemp("doors") / "home"))
    yield stage
    stage.close()


async def say(
    url: str, name: str, content: str, *, max_tokens: int = 24
) -> tuple[str, dict[str, Any]]:
    """One turn over the WebSocket: the text of its token frames, and its last frame."""
    text = ""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/v1/agents/{name}/stream") as socket,
    ):
        await socket.send_json(
            {"type": "say", "content": content, "temperature": 0, "max_tokens": max_tokens}
        )
        while True:
            frame = await socket.receive_json(timeout=60)
            assert frame["type"] != "error", frame
            if frame["type"] == "done":
                return text, frame
            text += frame.get("text", "")


def test_one_agent_through_all_three_doors(stage: Stage) -> None:
    """HTTP, Python, WebSocket, HTTP: each goes on from all that was said before."""

    async def scenario() -> None:
        room, url = Room(stage.house, stage.house.system), stage.url
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            history: list[Any] = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": "What is the capital of France?"},
            ]
            options: dict[str, Any] = {
                "model": "default",
                "temperature": 0,
                "max_tokens": 24,
                "extra_headers": {"X-Agent-Name": "alice"},
            }
            first = await client.chat.completions.create(messages=history, **options)
            spoken = first.choices[0].message.content or ""
            assert "Paris" in spoken
            assert first.usage is not None
            known = first.usage.total_tokens

            alice = await room.spawn("alice")
            reply = await alice.say("And of Italy?", max_tokens=24, sampling=GREEDY)
            assert reply.usage.cached_tokens >= 0.95 * known
            known = reply.usage.prompt_tokens + reply.usage.completion_tokens

            text, done = await say(url, "alice", "And of Spain?")
            assert text == done["text"]
            assert done["usage"]["cached_tokens"] >= 0.95 * known
            known = done["usage"]["prompt_tokens"] + done["usage"]["completion_tokens"]

            for question, answer in (
                (None, spoken),
                ("And of Italy?", reply.text),
                ("And of Spain?", done["text"]),
                ("Thank you.", None),
            ):
                if question is not None:
                    history.append({"role": "user", "content": question})
                if answer is not None:
                    history.append({"role": "assistant", "content": answer})
            stream = await client.chat.completions.create(
                messages=history, stream=True, stream_options={"include_usage": True}, **options
            )
            usage = [chunk.usage async for chunk in stream][-1]
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            assert (usage.prompt_tokens_details.cached_tokens or 0) >= 0.95 * known
            assert "alice" in [agent.name for agent in await room.agents()]

    stage.run(scenario())


def test_streams_and_whole_answers_say_the_same(stage: Stage) -> None:
    async def scenario() -> None:
        async with openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none") as client:
            question: Any = {
                "model": "default",
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "temperature": 0,
                "max_tokens": 24,
            }
            headers = {"X-Agent-Name": "alice"}
            whole = await client.chat.completions.create(**question, extra_headers=headers)
            headers = {"X-Agent-Name": "bob"}
            stream = await client.chat.completions.create(
                **question, extra_headers=headers, stream=True
            )
            chunks = [chunk.choices[0] async for chunk in stream]
            text = "".join(choice.delta.content or "" for choice in chunks)
            assert text == whole.choices[0].message.content
            assert chunks[-1].finish_reason == whole.choices[0].finish_reason
            stopped = await client.chat.completions.create(
                **question, extra_headers={"X-Agent-Name": "carol"}, stop=["Paris"]
            )
            assert stopped.choices[0].message.content == text[: text.index("Paris")]
            assert stopped.choices[0].finish_reason == "stop"

    stage.run(scenario())


def test_bad_input_is_refused_before_any_work(stage: Stage) -> None:
    async def scenario() -> None:
        house, url = stage.house, stage.url
        async with aiohttp.ClientSession(url) as client:
            hello = [{"role": "user", "content": "Hello"}]
            before = (await house.counters()).jobs
            for body, name, status, param in (
                (b"{", "alice", 400, None),
                ({"messages": "Hello"}, "alice", 400, "messages"),
                ({"messages": []}, "alice", 400, "messages"),
                ({"messages": hello, "model": "gpt-9"}, "alice", 404, "model"),
                ({"messages": hello}, "a/b", 400, "X-Agent-Name"),
                ({"messages": [{"role": "user", "content": "x " * 9000}]}, "a", 400, "messages"),
                ({"messages": [{"role": "user", "content": "x " * 9000}]}, None, 400, "messages"),
                ({"messages": hello * 9000}, "c", 400, "messages"),
            ):
                data = body if isinstance(body, bytes) else json.dumps(body)
                headers = {} if name is None else {"X-Agent-Name": name}
                async with client.post(
                    "/v1/chat/completions", data=data, headers=headers
                ) as response:
                    error = (await response.json())["error"]
                    assert (response.status, error["param"]) == (status, param), error
            assert (await house.counters()).jobs == before
            assert not [a for a in await house.agents("") if a.name.startswith("anon-")]
            _, done = await say(url, "alice", "Hello", max_tokens=4)
            assert done["finish_reason"] in ("stop", "length")

    stage.run(scenario())


def test_a_client_that_leaves_frees_the_slot_within_one_step(stage: Stage) -> None:
    """While its prompt is read, in mid-decode and in mid-call; then nothing runs any more."""
    text = {"type": "string", "minLength": 2000}
    note = {"type": "object", "properties": {"text": text}, "required": ["text"]}
    calling: dict[str, object] = {
        "tools": [{"type": "function", "function": {"name": "note", "parameters": note}}],
        "tool_choice": "required",
    }
    cases: list[tuple[str, bool, dict[str, object]]] = [
        (LONG, False, {}),
        ("Count to a thousand.", True, {}),
        ("Note something long.", True, calling),
    ]

    async def scenario() -> None:
        house, url = stage.house, stage.url
        async with aiohttp.ClientSession(url) as client:
            for prompt, reads_first, more in cases:
                before = await house.counters()
                messages = [{"role": "user", "content": prompt}]
                body = {"messages": messages, "stream": True, **more}
                asking = asyncio.create_task(leave(client, body, reads_first=reads_first))
                while (await house.counters()).jobs == before.jobs:
                    pass
                if reads_first:
                    await asking
                else:
                    asking.cancel()
                while (after := await house.counters()).cancelled == before.cancelled:
                    pass
                if not reads_first:
                    # The prompt was not read to its end, which is beyond 256 tokens.
                    assert after.prefill_tokens - before.prefill_tokens <= 256
                _, done = await say(url, "dora", "Hello", max_tokens=4)
                used = (await house.counters()).decode_steps - after.decode_steps
                # Only dora's own steps: the one that left takes none.
                assert used <= done["usage"]["completion_tokens"] + 1

    stage.run(scenario())


async def leave(client: aiohttp.ClientSession, body: object, *, reads_first: bool) -> None:
    """Ask for a stream and close the connection, after its first line if ``reads_first``."""
    response = await client.post("/v1/chat/completions", json=body)
    if reads_first:
        await response.content.readline()
    response.close()


def test_the_python_door_leads_to_the_agents_that_the_key_opens(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = make_home(tmp_path_factory.mktemp("keyed") / "home")
    overrides = {"home": str(home), "server.api_key": "sesame"}
    settings = load_settings(overrides=overrides).settings

    async def scenario() -> None:
        async with open_house(settings) as house, serve_http(house, "127.0.0.1", 0) as url:
            room = Room(house, house.system)
            await room.spawn("alice")
            headers = {"Authorization": "Bearer sesame"}
            async with (
                aiohttp.ClientSession(url, headers=headers) as client,
                client.get("/v1/agents") as response,
            ):
                names = [agent["name"] for agent in (await response.json())["data"]]
            assert names == ["alice"] == [agent.name for agent in await room.agents()]

    uvloop.run(scenario())


def test_a_turn_that_nobody_reads_is_finished_and_remembered(stage: Stage) -> None:
    async def scenario() -> None:
        house = stage.house
        request = TurnRequest(
            messages=(ChatMessage("user", "Count from one to nine."),),
            mode="say",
            agent="unread",
            namespace=house.namespace,
            max_tokens=16,
            sampling=GREEDY,
        )
        unread = await house.open_turn(request)
        async with asyncio.timeout(60):
            agent = await unread_agent(stage)
            while agent is None or agent.head is None:
                agent = await unread_agent(stage)
        events = [event async for event in unread]
        done = events[-1]
        assert isinstance(done, TurnDone)
        assert done.head == agent.head
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == done.text

    stage.run(scenario())


async def unread_agent(stage: Stage) -> AgentInfo | None:
    agents = await stage.house.agents(stage.house.namespace)
    return next((agent for agent in agents if agent.name == "unread"), None)


@pytest.mark.parametrize("reads_first", [False, True])
def test_a_socket_that_is_lost_frees_the_slot_within_one_step(
    stage: Stage, reads_first: bool
) -> None:
    """While its prompt is read, and in mid-decode, as for a stream over HTTP."""

    async def scenario() -> None:
        house = stage.house
        before = await house.counters()
        client = aiohttp.ClientSession(stage.url)
        socket = await client.ws_connect("/v1/agents/lost/stream")
        content = "Count to a thousand." if reads_first else LONG
        await socket.send_json({"type": "say", "content": content})
        while (await house.counters()).jobs == before.jobs:
            pass
        if reads_first:
            while (await socket.receive_json())["type"] != "token":
                pass
        assert client.connector is not None
        await client.connector.close()
        while (after := await house.counters()).cancelled == before.cancelled:
            pass
        if not reads_first:
            assert after.prefill_tokens - before.prefill_tokens <= 256
        _, done = await say(stage.url, "dora", "Hello", max_tokens=4)
        used = (await house.counters()).decode_steps - after.decode_steps
        assert used <= done["usage"]["completion_tokens"] + 1
        await client.close()

    stage.run(scenario())


def test_a_lost_socket_is_resumed_without_a_lost_or_doubled_token(stage: Stage) -> None:
    async def scenario() -> None:
        frame = {"type": "say", "id": "t", "content": "Count from one to nine.", "max_tokens": 24}
        tokens: list[int] = []
        text = ""
        path = "/v1/agents/erin/stream"
        last: dict[str, Any] = {}
        while last.get("type") != "done":
            client = aiohttp.ClientSession(stage.url)
            socket = await client.ws_connect(path)
            await socket.send_json(frame)
            for _ in range(6):
                last = await socket.receive_json()
                assert last["type"] != "error", last
                if last["type"] == "token":
                    assert last["index"] == len(tokens)
                    tokens += last["tokens"]
                    text += last["text"]
                if last["type"] == "done":
                    break
            assert client.connector is not None
            await client.connector.close()
            await client.close()
            frame = {"type": "resume", "id": "t", "after": last["seq"]}
        assert text == last["text"]
        assert len(tokens) == last["usage"]["completion_tokens"]

    stage.run(scenario())
