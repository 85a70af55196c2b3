"""Turns over sockets that are lost, shared and many: resumed without a lost or doubled token."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jsonschema
import msgspec
import pytest

from greenroom.actors.client_frames import FrameReader, Resume, Say
from greenroom.actors.frames import Cancelled, Done, Started
from greenroom.actors.http import serve_http
from greenroom.actors.limits import Turnstile
from greenroom.actors.recording import MAX_AHEAD, MAX_RECORDINGS, Recordings
from greenroom.runtime.errors import NotFound
from greenroom.runtime.records import TextDelta, TurnRequest
from tests.house import DONE, STARTED, Reply, SmallHouse, hang, run, talk
from tests.test_websocket import PATH, connected, until

Socket = aiohttp.ClientWebSocketResponse
SAY = {"type": "say", "id": "t", "content": "Hello"}
NUM_TOKENS = 40


class Steps:
    """A turn each of whose tokens waits to be let out."""

    def __init__(self) -> None:
        self._allowed = asyncio.Semaphore(0)

    def let_out(self, num_tokens: int = 1) -> None:
        for _ in range(num_tokens):
            self._allowed.release()

    async def __call__(self, request: TurnRequest, reply: Reply) -> None:
        await reply.send(STARTED)
        for n in range(NUM_TOKENS):
            await self._allowed.acquire()
            await reply.send(TextDelta(f"{n} ", (n,)))
        await reply.send(TextDelta("tail", ()))
        await reply.send(DONE)


class Visitor:
    """A client whose connection can be cut without a goodbye."""

    def __init__(self, url: str, path: str = "/v1/stream") -> None:
        self._client = aiohttp.ClientSession(url)
        self._path = path

    async def connect(self) -> Socket:
        self.socket = await self._client.ws_connect(self._path)
        return self.socket

    async def lose(self) -> None:
        assert self._client.connector is not None
        await self._client.connector.close()
        await self._client.close()


@asynccontextmanager
async def visit(url: str, path: str = "/v1/stream") -> AsyncIterator[Socket]:
    """A socket that is lost at the end."""
    visitor = Visitor(url, path)
    try:
        yield await visitor.connect()
    finally:
        await visitor.lose()


def tokens(frames: list[dict[str, Any]]) -> list[int]:
    return [token for frame in frames if frame["type"] == "token" for token in frame["tokens"]]


@pytest.mark.parametrize("by_index", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_turn_whose_socket_is_lost_again_and_again(by_index: bool, seed: int) -> None:
    async def scenario() -> None:
        steps = Steps()
        house = SmallHouse(steps)
        dice = random.Random(seed)
        async with serve_http(house, "127.0.0.1", 0) as url:
            visitor = Visitor(url, PATH)
            socket = await visitor.connect()
            await socket.send_json(SAY)
            seen = [await socket.receive_json()]
            while seen[-1]["type"] != "done":
                steps.let_out()
                # What is on its way to a lost socket is not seen by anybody.
                if len(tokens(seen)) < NUM_TOKENS and dice.random() < 0.4:
                    await visitor.lose()
                    visitor = Visitor(url)
                    socket = await visitor.connect()
                    place = {"index": len(tokens(seen))} if by_index else {"after": seen[-1]["seq"]}
                    frame = {"type": "resume", "id": "t", "agent": "alice", **place}
                    await socket.send_json(frame)
                    if place == {"index": 0}:
                        assert (await socket.receive_json())["type"] == "started"
                seen.append(await socket.receive_json())
            assert tokens(seen) == list(range(NUM_TOKENS))
            text = "".join(frame["text"] for frame in seen if frame["type"] == "token")
            assert text == "".join(f"{n} " for n in range(NUM_TOKENS)) + "tail"
            assert [frame["seq"] for frame in seen] == list(range(len(seen)))
            assert len(house.requests) == 1
            assert not house.left.is_set()
            await visitor.lose()

    run(scenario())


def test_what_has_ended_can_be_had_again_and_places_that_are_not_there_are_refused() -> None:
    async def scenario() -> None:
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            async with visit(url, PATH) as socket:
                await socket.send_json(SAY)
                told = await until(socket, "done")
            async with visit(url, PATH) as socket:
                for place, param in (({"index": 99}, "index"), ({"after": 99}, "after")):
                    await socket.send_json({"type": "resume", "id": "t", **place})
                    (refused,) = await until(socket, "error")
                    assert (refused["id"], refused["error"]["param"]) == ("t", param)
                await socket.send_json({"type": "resume", "id": "t"})
                assert await until(socket, "done") == told
                await socket.send_json({"type": "resume", "id": "t", "index": 5})
                assert [f["type"] for f in await until(socket, "done")] == ["usage", "done"]

    run(scenario())


def test_nobody_resumes_the_turns_of_another_key() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        recordings = Recordings(house, Turnstile(1000, "turns", house.meter.rejected), 60)
        say = FrameReader(agent="alice", namespace="one").read(msgspec.json.encode(SAY))
        assert isinstance(say, Say)
        recordings.begin(say, "r")
        resume = Resume("t", "alice", None, None)
        assert recordings.find("one", resume).say is say
        with pytest.raises(NotFound):
            recordings.find("two", resume)
        await recordings.close()

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "resume_s", "politely"),
    [
        ({"type": "say", "content": "Hello"}, 60.0, False),  # it has no id to come back for
        (SAY, 60.0, True),
        (SAY, 0.0, False),
        (SAY, 0.01, False),
    ],
)
def test_a_turn_that_nobody_comes_back_to_is_given_up(
    frame: dict[str, object], resume_s: float, politely: bool
) -> None:
    async def scenario() -> None:
        house = SmallHouse(hang, resume_s=resume_s)
        async with serve_http(house, "127.0.0.1", 0) as url:
            async with visit(url, PATH) as socket:
                await socket.send_json(frame)
                await house.opened.wait()
                if politely:
                    await socket.close()
            await house.left.wait()

    run(scenario())


def test_an_id_is_taken_while_its_turn_runs() -> None:
    async def scenario() -> None:
        house = SmallHouse(hang)
        async with serve_http(house, "127.0.0.1", 0) as url:
            async with visit(url, PATH) as socket:
                await socket.send_json(SAY)
                await house.opened.wait()
            async with visit(url, PATH) as socket:
                await socket.send_json(SAY)
                (refused,) = await until(socket, "error")
                assert refused["error"]["code"] == "id_in_use"
                # Whoever takes it up may give it up, too.
                await socket.send_json({"type": "resume", "id": "t"})
                await socket.send_json({"type": "cancel", "id": "t"})
                assert [f["type"] for f in await until(socket, "cancelled")] == ["cancelled"]
                await house.left.wait()
                house.play = SmallHouse().play
                await socket.send_json(SAY)
                await until(socket, "done")

    run(scenario())


def test_several_agents_speak_at_once_over_one_socket() -> None:
    async def scenario() -> None:
        house = SmallHouse(hang)
        async with serve_http(house, "127.0.0.1", 0) as url, visit(url) as socket:
            await socket.send_json({"type": "say", "id": "1", "agent": "alice", "content": "Hi"})
            await house.opened.wait()
            house.play = SmallHouse().play
            await socket.send_json({"type": "say", "id": "2", "agent": "bob", "content": "Hi"})
            frames = await until(socket, "done")
            assert {frame["id"] for frame in frames} == {"2"}
            assert [request.agent for request in house.requests] == ["alice", "bob"]
            await socket.send_json({"type": "say", "content": "Hi"})
            assert (await until(socket, "error"))[-1]["error"]["param"] == "agent"
            await socket.send_json({"type": "cancel", "agent": "bob"})
            await socket.send_json({"type": "ping", "id": "p"})
            assert await until(socket, "pong") == [{"type": "pong", "id": "p"}]
            await socket.send_json({"type": "cancel"})
            (cancelled,) = await until(socket, "cancelled")
            assert (cancelled["id"], cancelled["agent"]) == ("1", "alice")

    run(scenario())


def test_hearing_over_a_socket() -> None:
    async def scenario() -> None:
        house = SmallHouse(hang)
        async with connected(house) as socket:
            await socket.send_json(SAY)
            hear = {"type": "hear", "id": "h", "content": "It rains.", "name": "bob"}
            await socket.send_json(hear)
            assert await until(socket, "heard") == [{"type": "heard", "id": "h", "agent": "alice"}]
            (told,) = house.told
            assert (told.agent, told.content, told.name) == ("alice", "It rains.", "bob")

    run(scenario())


def test_a_slow_reader_bounds_what_is_kept_for_it() -> None:
    """A turn that talks for ever is followed no further than the reader reads."""

    async def scenario() -> None:
        house = SmallHouse(talk)
        recordings = Recordings(house, Turnstile(1000, "turns", house.meter.rejected), 60)
        recording = recordings.begin(_say("t"), "r")
        recordings.followed(recording)
        frames = recording.follow()
        assert isinstance(await anext(frames), Started)
        for _ in range(4 * MAX_AHEAD):
            await asyncio.sleep(0)
        assert recording.num_frames <= MAX_AHEAD + 2
        recording.cancel()
        # Whoever gives a turn up does not have to hear the rest of it first.
        await recording.over()
        assert [frame async for frame in frames] == [Cancelled("t", "alice")]
        await recordings.close()

    run(scenario())


def test_only_so_many_turns_are_kept() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        recordings = Recordings(house, Turnstile(1000, "turns", house.meter.rejected), 60)
        for n in range(MAX_RECORDINGS + 5):
            recording = recordings.begin(_say(str(n)), "r")
            recordings.followed(recording)
            assert isinstance([frame async for frame in recording.follow()][-1], Done)
            recordings.left(recording, for_good=False)
        assert len(recordings) == MAX_RECORDINGS
        await recordings.close()

    run(scenario())


def test_no_more_sockets_than_are_served() -> None:
    async def scenario() -> None:
        house = SmallHouse(max_sockets=2)
        async with serve_http(house, "127.0.0.1", 0) as url, visit(url), visit(url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with visit(url):
                    pass
            assert refused.value.status == 503
            assert refused.value.headers is not None
            assert "Retry-After" in refused.value.headers
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with (
                    aiohttp.ClientSession(url) as client,
                    client.ws_connect("/v1/scenes/heist/stream"),
                ):
                    pass
            assert refused.value.status == 503

    run(scenario())


def test_the_frames_are_as_the_schema_says() -> None:
    async def scenario() -> None:
        async with (
            serve_http(SmallHouse(), "127.0.0.1", 0) as url,
            aiohttp.ClientSession(url) as client,
            client.get("/v1/stream/schema") as response,
        ):
            schema = msgspec.json.decode(await response.read())
            server = jsonschema.Draft202012Validator({**schema, "anyOf": [schema["anyOf"][1]]})
            async with client.ws_connect(PATH) as socket:
                await socket.send_json(SAY)
                frames = await until(socket, "done")
                for other in ("{}", '{"type": "ping"}', '{"type": "hear", "content": "x"}'):
                    await socket.send_str(other)
                    frames.append(await socket.receive_json())
            for frame in frames:
                server.validate(frame)
            client_side = jsonschema.Draft202012Validator({**schema, "anyOf": [schema["anyOf"][0]]})
            client_side.validate(SAY)
            for bad in ({"type": "say", "id": 7}, {"type": "sing"}, {"id": "t"}):
                assert not client_side.is_valid(bad)

    run(scenario())


def _say(turn: str) -> Say:
    frame = FrameReader(agent="alice", namespace="").read(msgspec.json.encode({**SAY, "id": turn}))
    assert isinstance(frame, Say)
    return frame
