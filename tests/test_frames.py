"""Frames that nobody thought of: each is answered as the schema says, and the socket goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.frames_schema import frames_schema
from tests.house import SmallHouse, visiting
from tests.server import make_home, running

SCHEMA: dict[str, Any] = json.loads(frames_schema())
SENT = jsonschema.Draft202012Validator({"$ref": "#/$defs/server", "$defs": SCHEMA["$defs"]})
KINDS = [ref["$ref"].rpartition("/")[2] for ref in SCHEMA["$defs"]["client"]["anyOf"]]

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"])}, optional={"content": WORDS}
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "agent": st.sampled_from(["alice", "bob"]),
    "id": st.sampled_from(["1", "2"]),
    "content": WORDS,
    "messages": st.lists(MESSAGE, max_size=3),
    "max_tokens": st.integers(1, 3),
    "stop": st.lists(WORDS, max_size=2),
    "tools": st.just([TOOL]),
    "tool_choice": st.sampled_from(["auto", "none", "required"]),
    "index": st.integers(0, 3),
    "after": st.integers(0, 3),
    "seed": st.integers(0, 9),
    "temperature": st.floats(0, 2),
}


def _frame(kind: str) -> st.SearchStrategy[str]:
    """A frame of the kind with any of its fields, each as it is meant or otherwise."""
    properties = SCHEMA["$defs"][kind]["properties"]
    fields = {name: LIKELY.get(name, ANYTHING) | ANYTHING for name in properties if name != "type"}
    # Without it the default model may talk until its window is full.
    short = {"max_tokens": fields.pop("max_tokens")} if "max_tokens" in fields else {}
    named = {"type": st.just(properties["type"]["enum"][0]), **short}
    return st.fixed_dictionaries(named, optional=fields).map(json.dumps)


CUT = st.tuples(st.sampled_from(KINDS).flatmap(_frame), st.integers(0, 60))
FRAMES = st.lists(
    st.sampled_from(KINDS).flatmap(_frame)
    | ANYTHING.map(json.dumps)
    | WORDS
    | CUT.map(lambda cut: cut[0][: cut[1]]),
    max_size=8,
)


async def exchange(client: aiohttp.ClientSession, frames: list[str]) -> None:
    """Send them all, and a ping behind them: until its pong everything must be as described."""
    async with client.ws_connect("/v1/stream") as socket:
        for frame in frames:
            await socket.send_str(frame)
        await socket.send_json({"type": "ping", "id": "the last"})
        while True:
            message = await socket.receive(timeout=60)
            assert message.type is aiohttp.WSMsgType.TEXT, (message, frames)
            told = json.loads(message.data)
            SENT.validate(told)
            if told["type"] == "error":
                assert told["status"] in (400, 404, 409, 413, 429, 503), (told, frames)
            if told == {"type": "pong", "id": "the last"}:
                return


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(FRAMES)
def test_any_frames_at_the_door(frames: list[str]) -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            await exchange(client, frames)

    uvloop.run(scenario())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home: Path = make_home(tmp_path_factory.mktemp("frames") / "home")
    with running(home) as server:
        yield server.url
        assert "Traceback" not in server.log, server.log[-4000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(FRAMES)
def test_any_frames_at_a_real_server(url: str, frames: list[str]) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession(url) as client:
            await exchange(client, frames)

    uvloop.run(scenario())
