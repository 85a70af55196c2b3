"""A house far away: what goes wrong between here and there, and that the next call works again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

import greenroom
from greenroom.actors.guard import Unauthorized
from greenroom.actors.http import serve_http
from greenroom.actors.remote_errors import ServerFailed, ServerLost
from greenroom.actors.room import Room
from greenroom.runtime.errors import (
    Conflict,
    GreenroomError,
    InvalidRequest,
    MailboxFull,
    NotFound,
    Unavailable,
)
from greenroom.runtime.records import ChatMessage, Sampling, ToolCall
from tests.house import DONE, SmallHouse, run, talk
from tests.menagerie import config_of
from tests.server import make_home, running
from tests.zoo import save_checkpoint


@asynccontextmanager
async def far(house: SmallHouse, **options: Any) -> AsyncIterator[Room]:
    async with (
        serve_http(house, "127.0.0.1", 0) as url,
        greenroom.connect(url, **options) as room,
    ):
        yield room


def test_what_is_asked_for_arrives() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with far(house) as room:
            assert (room.model.name, room.model.context_window) == ("smol", 2048)
            said = [
                ChatMessage("user", "Hi", "bob"),
                ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", '{"a":1}'),)),
                ChatMessage("tool", "2", tool_call_id="c1"),
            ]
            sampling = Sampling(temperature=0.5, top_k=7, seed=3, logit_bias=((5, -1.0),))
            reply = await room.agent("alice").say(
                said, sampling=sampling, max_tokens=9, stop=["x"], key="k1"
            )
            assert (reply.text, reply.usage, reply.head) == (DONE.text, DONE.usage, DONE.head)
            (request,) = house.requests
            assert (request.messages, request.sampling) == (tuple(said), sampling)
            assert (request.max_tokens, request.stop, request.key) == (9, ("x",), "k1")
            with pytest.raises(InvalidRequest):
                await room.agent("alice").say("Hi", sampling=Sampling(top_logprobs=1))

    run(scenario())


@pytest.mark.parametrize(
    "refusal",
    [MailboxFull("alice", 1), Unavailable("not now"), InvalidRequest("no", param="p", code="c")],
)
def test_refusals_come_through(refusal: GreenroomError) -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with far(house) as room:
            house.refusal = refusal
            for refused in (room.agent("alice").say("Hi"), room.agent("alice").hear("Hi")):
                with pytest.raises(type(refusal), match=str(refusal)):
                    await refused

    run(scenario())


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(NotFound("no"), NotFound), (Conflict("no"), Conflict), (ValueError("?"), ServerFailed)],
)
def test_other_errors_are_told_by_the_status(
    refusal: Exception, kind: type[GreenroomError]
) -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with far(house) as room:
            house.refusal = refusal
            for refused in (room.agent("alice").say("Hi"), room.agent("alice").hear("Hi")):
                with pytest.raises(kind):
                    await refused

    run(scenario())


def test_who_may_not_come_in_is_told_so() -> None:
    async def scenario() -> None:
        house = SmallHouse(api_key="sesame")
        with pytest.raises(Unauthorized):
            async with far(house, key="wrong"):
                pass
        async with far(house, key="sesame") as room:
            assert (await room.agent("alice").say("Hi")).text == DONE.text
            with pytest.raises(NotFound, match="administrative"):
                await room.inspect()

    run(scenario())


def test_nobody_there() -> None:
    async def scenario() -> None:
        with pytest.raises(ServerLost):
            async with greenroom.connect(f"http://127.0.0.1:{_free_port()}"):
                pass

    run(scenario())


def test_leaving_a_stream_frees_the_server() -> None:
    async def scenario() -> None:
        house = SmallHouse(talk)
        async with far(house) as room:
            async for _ in room.agent("alice").stream("Hi"):
                break
            await house.left.wait()
            second = asyncio.ensure_future(room.agent("alice").say("Hi"))
            await asyncio.sleep(0.05)
        with pytest.raises(ServerLost, match="room was closed"):
            await second

    run(scenario())


def test_a_server_that_is_killed_in_mid_stream_and_starts_again(
    tmp_path: Path, default_model_path: Path
) -> None:
    """The turn ends in ServerLost and is not remembered; the same room goes on from before it."""
    config = {**config_of("llama"), "model_type": "llama", "vocab_size": 49152}
    model = str(save_checkpoint(tmp_path / "model", default_model_path, config))
    home, port = make_home(tmp_path / "home"), str(_free_port())

    async def scenario() -> None:
        with running(home, "--model", model, "--port", port) as server:
            async with greenroom.connect(server.url) as room:
                bob = await room.spawn("bob")
                first = await bob.say("Hello", max_tokens=4)
                story = aiter(bob.stream("A long story", max_tokens=1500))
                await anext(story)
                await asyncio.to_thread(server.kill)
                with pytest.raises(ServerLost):
                    await _read(story)
                with pytest.raises(ServerLost):
                    await bob.info()
                with running(home, "--model", model, "--port", port):
                    assert (await bob.info()).head == first.head
                    assert (await bob.say("And?", max_tokens=2)).cached_tokens > 0

    uvloop.run(scenario())


async def _read(texts: AsyncIterator[str]) -> None:
    async for _ in texts:
        pass


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
