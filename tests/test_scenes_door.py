"""Scenes over HTTP and WebSocket: a real server in front of agents without a model."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from greenroom.runtime.records import ChatMessage
from tests.house import run, visiting
from tests.repertory import Evening, Repertory, World

MEMBERS = [{"name": "ann", "agent": "ann"}, {"name": "bob", "agent": "bob"}]
PLAN = {"name": "tea", "members": MEMBERS, "phases": [{"name": "talk", "turns": 2}]}


def answer(agent: str, prompt: Sequence[ChatMessage], number: int) -> str:
    return "Tea." if "options are" in prompt[-1].content else f"{number} from {agent}"


@asynccontextmanager
async def theatre() -> AsyncIterator[aiohttp.ClientSession]:
    house = Repertory(World(), answer, pace=0.01)
    evening = Evening(house)
    async with evening.system, visiting(house) as client:
        yield client


async def call(client: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    async with client.request(method, f"/v1/scenes{path}", json=body) as response:
        return response.status, await response.json() if response.status != 204 else None


def test_a_scene_over_http() -> None:
    async def scenario() -> None:
        async with theatre() as client:
            status, info = await call(client, "POST", "", PLAN)
            assert (status, info["turns"], info["ended"]) == (201, 0, None)
            assert (await call(client, "POST", "", PLAN))[0] == 201
            changed = {**PLAN, "max_turns": 1}
            assert (await call(client, "POST", "", changed))[0] == 409
            status, line = await call(
                client, "POST", "/tea/lines", {"text": "Psst.", "to": ["bob"]}
            )
            assert (status, line["to"]) == (201, ["bob"])
            _, ran = await call(client, "POST", "/tea/run", {"turns": 1})
            assert [x["text"] for x in ran["lines"]] == ["1 from ann"]
            assert ran["scene"]["turns"] == 1
            _, lines = await call(client, "GET", "/tea/transcript?heard_by=ann")
            assert [x["text"] for x in lines["data"]] == ["1 from ann"]
            _, tally = await call(
                client, "POST", "/tea/votes", {"question": "Which?", "options": ["tea", "coffee"]}
            )
            assert (tally["winner"], tally["num_valid"]) == ("tea", 2)
            body = {"stream": True}
            async with client.post("/v1/scenes/tea/run", json=body) as response:
                streamed = (await response.text()).split("\n\n")
            kinds = [e.split('"type":"')[1].split('"')[0] for e in streamed if '"type"' in e]
            assert kinds[0] == "cue"
            assert {"speaking", "token", "line"} <= set(kinds)
            assert kinds[-1] == "end"
            assert "[DONE]" in streamed[-2]
            _, everything = await call(client, "GET", "/tea/entries")
            assert [e["number"] for e in everything["data"]] == list(range(len(everything["data"])))
            _, scenes = await call(client, "GET", "")
            assert [s["name"] for s in scenes["data"]] == ["tea"]
            assert (await call(client, "DELETE", "/tea"))[0] == 204
            assert (await call(client, "GET", "/tea"))[0] == 404

    run(scenario())


def test_what_is_wrong_with_a_request_is_named() -> None:
    async def scenario() -> None:
        async with theatre() as client:
            for body, param in (
                ({**PLAN, "order": "chaos"}, "order"),
                ({**PLAN, "phases": [{"turn": 2}]}, "phases[0]"),
                ({**PLAN, "phases": [{"cast": ["eve"]}]}, "phases[0].cast"),
                ({**PLAN, "members": []}, "members"),
            ):
                status, told = await call(client, "POST", "", body)
                assert (status, told["error"]["param"]) == (400, param), told
            await call(client, "POST", "", {"name": "chat", "members": MEMBERS})
            status, told = await call(client, "POST", "/chat/run", {})
            assert (status, told["error"]["param"]) == (400, "turns")
            status, told = await call(client, "POST", "/chat/run", {"turns": 0})
            assert (status, told["error"]["param"]) == (400, "turns")
            status, told = await call(client, "POST", "/chat/run", {"speaker": "eve"})
            assert (status, told["error"]["param"]) == (400, "member")
            assert (await call(client, "POST", "/none/run", {}))[0] == 404

    run(scenario())


def test_names_of_any_script_in_any_spelling() -> None:
    composed, apart = "Caf\u00e9.茶", "Cafe\u0301.茶"

    async def scenario() -> None:
        async with theatre() as client:
            members = [{"name": "Zoe\u0308", "agent": "ann"}, {"name": "अनुराधा", "agent": "bob"}]
            status, info = await call(client, "POST", "", {"name": apart, "members": members})
            assert (status, info["name"]) == (201, composed)
            for name in (composed, apart):
                _, ran = await call(client, "POST", f"/{name}/run", {"speaker": "Zoe\u0308"})
                assert [x["speaker"] for x in ran["lines"]] == ["Zo\u00eb"]
            status, _ = await call(
                client, "POST", f"/{apart}/lines", {"text": "?", "to": ["अनुराधा"]}
            )
            assert status == 201
            status, told = await call(client, "POST", f"/{apart}/lines", {"text": "?", "to": []})
            assert (status, told["error"]["param"]) == (400, "to")
            _, heard = await call(client, "GET", f"/{apart}/transcript?heard_by=Zoe\u0308")
            assert len(heard["data"]) == 2

    run(scenario())


def test_a_scene_over_a_websocket() -> None:
    async def scenario() -> None:
        async with theatre() as client:
            await call(client, "POST", "", {"name": "chat", "members": MEMBERS})
            async with (
                client.ws_connect("/v1/scenes/chat/stream") as one,
                client.ws_connect("/v1/scenes/chat/stream") as other,
            ):
                await one.send_json({"type": "run", "turns": 2})
                seen = await until(one, "rest")
                assert [f["text"] for f in seen if f["type"] == "line"] == [
                    "1 from ann",
                    "2 from bob",
                ]
                said = "".join(f["text"] for f in seen if f["type"] == "token")
                assert said.split() == ["1", "from", "ann", "2", "from", "bob"]
                assert seen[-1]["scene"]["turns"] == 2
                watched = await until(other, "line", 2)
                assert [f for f in watched if f["type"] == "line"] == [
                    f for f in seen if f["type"] == "line"
                ]
                await other.send_json({"type": "tell", "text": "Hello!", "speaker": "Guest"})
                assert (await until(one, "line"))[-1]["speaker"] == "Guest"
                await one.send_json({"type": "run", "turns": 1000})
                await until(one, "line")
                await other.send_json({"type": "run", "turns": 1})
                refused = (await until(other, "error"))[-1]
                assert (refused["error"]["code"], refused["status"]) == ("performing", 409)
                await one.send_json({"type": "stop"})
                assert not (await until(one, "rest"))[-1]["scene"]["performing"]
                await one.send_json({"type": "walk"})
                assert (await until(one, "error"))[-1]["error"]["code"] == "invalid_value"
                vote = {"question": "Which?", "options": ["tea", "coffee"]}
                await one.send_json({"type": "vote", "vote": vote})
                assert [f for f in await until(one, "rest") if f["type"] == "tally"]
                await one.send_json({"type": "run", "turns": 1000})
                await until(one, "line")
            # What a socket performs stops with it.
            while (await call(client, "GET", "/chat"))[1]["performing"]:
                pass
            with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
                await client.ws_connect("/v1/scenes/none/stream")

    run(scenario())


async def until(
    socket: aiohttp.ClientWebSocketResponse, kind: str, count: int = 1
) -> list[dict[str, Any]]:
    """Frames up to the ``count``th of that kind."""
    frames: list[dict[str, Any]] = []
    while sum(f["type"] == kind for f in frames) < count:
        frames.append(await socket.receive_json())
    return frames
