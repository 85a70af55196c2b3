"""The three doors of one real house: the default model behind real sockets."""

import asyncio
import json
import re
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.actors.room import Room
from greenroom.runtime.agent_records import AgentInfo
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnDone, TurnRequest
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


NOTE = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 2000}},
    "required": ["text"],
}
CALLING: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "note", "parameters": NOTE}}],
    "tool_choice": "required",
}
ENDLESS: dict[str, Any] = {"logit_bias": {"0": -100, "2": -100}}  # neither of its ends is drawn
# What is asked, and what of the answer a client has seen when it leaves.
MOMENTS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "while it waits": ("Hello.", {}, None),
    "while its prompt is read": (LONG, {}, None),
    "while it is answered": ("Count to a thousand.", ENDLESS, r'"(content|text)":"[^"]'),
    "in the middle of a call": ("Note something long.", CALLING, r'"arguments":"[^"]'),
}
CHAT = "/v1/chat/completions"
SOCKET = "/v1/agents/lost/stream"


@pytest.mark.parametrize("door", [CHAT, SOCKET])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_that_leaves_frees_the_slot_within_one_step(
    stage: Stage, door: str, moment: str
) -> None:
    """Its connection is gone without a word; then nothing of it runs any more."""
    prompt, more, sign = MOMENTS[moment]

    async def scenario() -> None:
        house = stage.house
        others, held = [], []
        for n in range(2 if moment == "while it waits" else 0):
            others.append(aiohttp.ClientSession(stage.url))
            path = f"/v1/agents/other{n}/stream"
            held.append(await ask(others[n], path, *MOMENTS["while it is answered"]))
        before = await house.counters()
        client = aiohttp.ClientSession(stage.url)
        asking = asyncio.create_task(ask(client, door, prompt, more, sign))
        while (await house.counters()).jobs == before.jobs:
            pass
        if sign is not None:
            held.append(await asking)
        await lose(client)
        while (after := await house.counters()).cancelled == before.cancelled:
            pass
        await asyncio.wait([asking])
        if sign is None:
            # The prompt was not read to its end, which is beyond 256 tokens, or not at all.
            most = 0 if others else 256
            assert after.prefill_tokens - before.prefill_tokens <= most
        assert (after.waiting, after.running) == (0, len(others))
        for other in others:
            await lose(other)
        while (before := await house.counters()).running:
            pass
        _, done = await say(stage.url, "dora", "Hello", max_tokens=4)
        used = (await house.counters()).decode_steps - before.decode_steps
        # Only dora's own steps: who has left takes none.
        assert used <= done["usage"]["completion_tokens"] + 1

    stage.run(scenario())


async def ask(
    client: aiohttp.ClientSession, door: str, prompt: str, more: dict[str, Any], sign: str | None
) -> object:
    """Ask through the door, and read until there is a ``sign`` in what is told, or to the end.

    What is returned holds the connection.
    """
    with suppress(aiohttp.ClientError):
        if door == CHAT:
            body = {"messages": [{"role": "user", "content": prompt}], "stream": True, **more}
            response = await client.post(door, json=body)
            async for line in response.content:
                if sign is not None and re.search(sign, line.decode()):
                    return response
        else:
            socket = await client.ws_connect(door)
            await socket.send_json({"type": "say", "content": prompt, **more})
            async for message in socket:
                if sign is not None and re.search(sign, message.data):
                    return socket
    return None


async def lose(client: aiohttp.ClientSession) -> None:
    """Its connections end without a word."""
    assert client.connector is not None
    await client.connector.close()
    await client.close()


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
