"""The WebSocket door: turns over one socket, cancelling, bad frames, leaving and draining."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.client_frames import BadFrame, FrameReader, Say
from greenroom.actors.http import serve_http
from greenroom.actors.session import MAX_WAITING
from greenroom.runtime.errors import ActorFailed
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnRequest
from tests.house import DONE, STARTED, WORDS, Reply, SmallHouse, hang, run, talk, visiting

Socket = aiohttp.ClientWebSocketResponse
PATH = "/v1/agents/alice/stream"


@asynccontextmanager
async def connected(house: SmallHouse) -> AsyncIterator[Socket]:
    async with visiting(house) as client, client.ws_connect(PATH) as socket:
        yield socket


async def until(socket: Socket, *kinds: str) -> list[dict[str, Any]]:
    """The frames up to the first of one of these kinds."""
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["type"] not in kinds:
        frames.append(await socket.receive_json())
    return frames


def test_several_turns_on_one_socket() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with connected(house) as socket:
            for turn in ("a", "b"):
                await socket.send_json({"type": "say", "id": turn, "content": "Hello"})
                started, *tokens, usage, done = await until(socket, "done")
                assert started == {
                    "type": "started",
                    "id": turn,
                    "agent": "alice",
                    "prompt_tokens": 21,
                    "cached_tokens": 5,
                    "seq": 0,
                }
                assert usage == {
                    "type": "usage",
                    "id": turn,
                    "agent": "alice",
                    "usage": {
                        "prompt_tokens": 21,
                        "completion_tokens": 7,
                        "cached_tokens": 5,
                        "reasoning_tokens": 0,
                    },
                    "seq": 6,
                }
                assert [t["type"] for t in tokens] == ["token"] * len(WORDS)
                assert "".join(t["text"] for t in tokens) == "".join(WORDS)
                assert [t["index"] for t in tokens] == list(range(len(WORDS)))
                assert [t["tokens"] for t in tokens] == [[n] for n in range(len(WORDS))]
                assert done == {
                    "type": "done",
                    "id": turn,
                    "agent": "alice",
                    "seq": 7,
                    "text": "".join(WORDS),
                    "finish_reason": "stop",
                    "usage": {
                        "prompt_tokens": 21,
                        "completion_tokens": 7,
                        "cached_tokens": 5,
                        "reasoning_tokens": 0,
                    },
                    "timings": msgspec.to_builtins(DONE.timings),
                    "head": "0badc0de",
                    "notices": [],
                    "reasoning": "",
                    "tool_calls": [],
                }
        assert [request.mode for request in house.requests] == ["say", "say"]
        assert house.requests[0].agent == "alice"
        assert not house.left.is_set()

    run(scenario())


def test_turns_wait_for_each_other_up_to_a_bound() -> None:
    async def scenario() -> None:
        house = SmallHouse(hang)
        async with connected(house) as socket:
            for n in range(MAX_WAITING + 2):
                await socket.send_json({"type": "say", "id": str(n), "content": "Hello"})
                if n == 0:
                    await house.opened.wait()
            (refused,) = await until(socket, "error")
            assert refused["id"] == str(MAX_WAITING + 1)
            assert refused["error"]["code"] == "mailbox_full"
            assert (refused["status"], refused["retry_after_s"]) == (429, 1)
            assert len(house.requests) == 1
            house.play = SmallHouse().play
            await socket.send_json({"type": "cancel", "id": "0"})
            (cancelled,) = await until(socket, "cancelled")
            assert cancelled["id"] == "0"
            assert house.left.is_set()
            for n in range(1, MAX_WAITING + 1):
                assert (await until(socket, "done"))[-1]["id"] == str(n)

    run(scenario())


def test_cancel_gives_up_the_running_turn_and_those_behind_it() -> None:
    async def scenario() -> None:
        house = SmallHouse(talk)
        async with connected(house) as socket:
            await socket.send_json({"type": "cancel"})  # nothing runs: no effect, no answer
            for n in ("a", "b", "c"):
                await socket.send_json({"type": "say", "id": n, "content": "Hello"})
            await until(socket, "token")
            await socket.send_json({"type": "cancel", "id": "b"})
            assert (await until(socket, "cancelled"))[-1]["id"] == "b"
            await socket.send_json({"type": "cancel"})
            ended = {(await until(socket, "cancelled"))[-1]["id"] for _ in range(2)}
            assert ended == {"a", "c"}
            assert len(house.requests) == 1
            assert house.left.is_set()
            house.play = SmallHouse().play
            await socket.send_json({"type": "say", "content": "Hello"})
            assert (await until(socket, "done"))[-1]["id"] is None

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ("{", None),
        ("[]", None),
        ("{}", "type"),
        ('{"type": "sing"}', "type"),
        ('{"type": "say"}', "content"),
        ('{"type": "say", "content": 5}', "content"),
        ('{"type": "say", "messages": []}', "messages"),
        ('{"type": "say", "content": "x", "messages": []}', "content"),
        ('{"type": "say", "messages": [{"role": "actor"}]}', "messages[0].role"),
        ('{"type": "say", "content": "x", "max_tokens": 0}', "max_tokens"),
        ('{"type": "say", "content": "x", "temperature": 9}', "temperature"),
        ('{"type": "say", "content": "x", "stop": [""]}', "stop"),
        ('{"type": "say", "content": "x", "max_token": 1}', "max_token"),
        ('{"type": "cancel", "ident": "x"}', "ident"),
        ('{"type": "cancel", "id": 7}', "id"),
        ('{"type": "say", "content": "x", "agent": "bob"}', "agent"),
        ('{"type": "say", "content": "x", "agent": "a/b"}', "agent"),
        ('{"type": "hear"}', "content"),
        ('{"type": "hear", "content": "x", "seed": 1}', "seed"),
        ('{"type": "resume"}', "id"),
        ('{"type": "resume", "id": "gone"}', "id"),
        ('{"type": "resume", "id": "x", "index": -1}', "index"),
        ('{"type": "resume", "id": "x", "index": 1, "after": 1}', "after"),
        ('{"type": "ping", "content": "x"}', "content"),
    ],
)
def test_a_bad_frame_is_answered_and_the_socket_goes_on(frame: str, param: str | None) -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with connected(house) as socket:
            await socket.send_str(frame)
            (answer,) = await until(socket, "error")
            assert answer["error"]["param"] == param
            gone = "gone" in frame  # a turn that is not there (any more)
            assert (answer["status"], answer["retry_after_s"]) == (404 if gone else 400, None)
            assert answer["error"]["type"] == "invalid_request_error"
            assert not house.requests
            await socket.send_json({"type": "say", "content": "Hello"})
            await until(socket, "done")

    run(scenario())


def test_a_binary_frame_is_refused() -> None:
    async def scenario() -> None:
        async with connected(SmallHouse()) as socket:
            await socket.send_bytes(b'{"type": "say", "content": "Hello"}')
            (answer,) = await until(socket, "error")
            assert answer["error"]["code"] == "invalid_frame"

    run(scenario())


def test_an_error_ends_the_turn_and_not_the_socket() -> None:
    async def stumble(request: TurnRequest, reply: Reply) -> None:
        await reply.send(STARTED)
        await reply.send(TextDelta("The", (1,)))
        raise ActorFailed("stage", "RuntimeError")

    async def scenario() -> None:
        house = SmallHouse(stumble)
        async with connected(house) as socket:
            await socket.send_json({"type": "say", "id": "x", "content": "Hello"})
            failed = (await until(socket, "error"))[-1]
            assert failed["id"] == "x"
            assert failed["error"]["type"] == "service_unavailable_error"
            assert (failed["status"], failed["retry_after_s"]) == (503, 1)
            house.play = SmallHouse().play
            await socket.send_json({"type": "say", "content": "Hello"})
            await until(socket, "done")

    run(scenario())


@pytest.mark.parametrize("play", [hang, talk])
@pytest.mark.parametrize("politely", [True, False])
def test_leaving_cancels_the_turn(play: Any, politely: bool) -> None:
    async def scenario() -> None:
        house = SmallHouse(play)
        async with visiting(house) as client:
            socket = await client.ws_connect(PATH)
            await socket.send_json({"type": "say", "content": "Hello"})
            await house.opened.wait()
            if politely:
                await socket.close()
            else:
                assert client.connector is not None
                await client.connector.close()
            await house.left.wait()
            await socket.close()

    run(scenario())


def test_stopping_lets_the_running_turn_end_and_closes_the_sockets() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def wait(request: TurnRequest, reply: Reply) -> None:
            await reply.send(STARTED)
            await release.wait()
            await reply.send(DONE)

        house = SmallHouse(wait)
        async with aiohttp.ClientSession() as client:
            serving = serve_http(house, "127.0.0.1", 0)
            url = await serving.__aenter__()
            busy = await client.ws_connect(url + PATH)
            idle = await client.ws_connect(url + PATH)
            await busy.send_json({"type": "say", "content": "Hello"})
            await until(busy, "started")
            stopping = asyncio.create_task(serving.__aexit__(None, None, None))
            assert (await idle.receive()).type is aiohttp.WSMsgType.CLOSE
            assert idle.close_code == aiohttp.WSCloseCode.GOING_AWAY
            await busy.send_json({"type": "say", "id": "late", "content": "Hello"})
            (late,) = await until(busy, "error")
            assert (late["id"], late["error"]["code"]) == ("late", "unavailable")
            release.set()
            await until(busy, "done")
            assert (await busy.receive()).type is aiohttp.WSMsgType.CLOSE
            await stopping

    run(scenario())


def test_the_version_is_agreed_in_the_handshake() -> None:
    async def scenario() -> None:
        async with (
            visiting(SmallHouse()) as client,
            client.ws_connect(PATH, protocols=("greenroom.v1",)) as socket,
        ):
            assert socket.protocol == "greenroom.v1"

    run(scenario())


def test_a_say_with_everything() -> None:
    frame = {
        "type": "say",
        "id": "7",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "seed": 4,
        "stop": "x",
    }
    reader = FrameReader(agent="alice", namespace="space")
    assert reader.read(msgspec.json.encode(frame)) == Say(
        "7",
        "alice",
        TurnRequest(
            messages=(ChatMessage("system", "s"), ChatMessage("user", "u")),
            mode="say",
            agent="alice",
            namespace="space",
            max_tokens=5,
            stop=("x",),
            sampling=Sampling(temperature=0, top_p=0.5, top_k=3, min_p=0.1, seed=4),
        ),
    )


@given(st.text('{}[]":,saytpecnl01', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BadFrame):
        assert isinstance(FrameReader(agent="alice", namespace="").read(text), msgspec.Struct)
