"""The routes of agents, over real sockets, and the streams that ``say`` gives."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from greenroom.runtime.agent_records import AgentInfo, HearRequest, SpawnRequest
from greenroom.runtime.errors import ActorFailed, MailboxFull
from greenroom.runtime.namespace import derive_namespace
from greenroom.runtime.records import ChatMessage, TextDelta, TurnProgress, TurnRequest
from tests.house import DONE, STARTED, WORDS, Reply, SmallHouse, hang, question, run, visiting

TEXT = "".join(WORDS)
ALICE = "/v1/agents/alice"


async def ask(
    client: aiohttp.ClientSession, method: str, path: str, body: object = None
) -> tuple[int, Any]:
    """The status and the JSON answer."""
    async with client.request(method, path, json=body) as response:
        return response.status, await response.json()


async def events(client: aiohttp.ClientSession, body: object) -> list[tuple[str, dict[str, Any]]]:
    """What a streamed ``say`` sends, each event by its name; comments by ``:``."""
    async with client.post(f"{ALICE}/say", json=body) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return parsed(await response.text())


def parsed(stream: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream."""
    found: list[tuple[str, dict[str, Any]]] = []
    for block in stream.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            found.append((":", {}))
            continue
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = lines["data"]
        found.append((lines.get("event", ""), {} if data == "[DONE]" else json.loads(data)))
    return found


def test_a_life() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with visiting(house) as client:
            wanted = {"name": "alice", "system": "Be brief.", "ttl_s": 60, "share": "none"}
            status, told = await ask(client, "POST", "/v1/agents", wanted)
            assert (status, told["name"], told["system"]) == (200, "alice", "Be brief.")
            assert house.spawned == [
                SpawnRequest(name="alice", system="Be brief.", ttl_s=60.0, share="none")
            ]
            status, told = await ask(client, "GET", ALICE)
            assert (status, told["head"], told["num_tokens"]) == (200, "0badc0de", 28)
            hear = {"content": "It rains.", "name": "bob", "key": "k"}
            status, told = await ask(client, "POST", f"{ALICE}/hear", hear)
            assert (status, told["num_pending"]) == (202, 1)
            assert house.told == [
                HearRequest(agent="alice", content="It rains.", name="bob", key="k")
            ]
            status, told = await ask(client, "GET", f"{ALICE}/heard?settled=true")
            assert (status, told) == (200, {"num_pending": 0, "head": "0badc0de"})
            status, told = await ask(client, "POST", f"{ALICE}/fork", {"name": "eve", "at": "0b"})
            assert (status, told["name"]) == (201, "eve")
            status, told = await ask(client, "POST", f"{ALICE}/rollback", {"to": "0b"})
            assert (status, told["head"]) == (200, "0b")
            status, told = await ask(client, "GET", f"{ALICE}/log")
            assert (status, told["data"][0]["kind"]) == (200, "generation")
            assert await ask(client, "POST", f"{ALICE}/pin") == (200, {"segment": "0badc0de"})
            pinned = await ask(client, "POST", f"{ALICE}/unpin", {"segment": "0b"})
            assert pinned == (200, {"segment": "0b"})
            status, told = await ask(client, "POST", f"{ALICE}/probe", {"content": "Hello"})
            assert (status, told["cached_tokens"]) == (200, 5)
            status, told = await ask(client, "DELETE", ALICE)
            assert (status, told["deleted"], told["erased"]["num_segments"]) == (200, True, 1)

    run(scenario())


def test_an_agent_is_carried_out_and_in() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with visiting(house) as client:
            async with client.get(f"{ALICE}/export") as response:
                assert response.status == 200
                assert 'filename="alice.greenroom"' in response.headers["Content-Disposition"]
                packed = await response.read()
            for path, name in (("/v1/agents/import", "alice"), ("/v1/agents/bob/import", "bob")):
                async with client.post(path, data=packed) as response:
                    assert (response.status, (await response.json())["name"]) == (201, name)
                assert house.imported == packed
            assert (await ask(client, "GET", "/v1/agents/nobody/export"))[0] == 404

    run(scenario())


def test_an_export_that_breaks_off_is_not_a_whole_answer() -> None:
    class Half(SmallHouse):
        async def export(self, namespace: str, agent: str) -> AsyncIterator[bytes]:
            yield b"half"
            raise ActorFailed("keeper", "OSError")

    async def scenario() -> None:
        async with visiting(Half()) as client, client.get(f"{ALICE}/export") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    run(scenario())


def test_an_import_is_bounded() -> None:
    async def scenario() -> None:
        house = SmallHouse(max_import_mb=1)
        async with (
            visiting(house) as client,
            client.post("/v1/agents/import", data=BytesIO(b"x" * (2 << 20))) as response,
        ):
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "body_too_large"

    run(scenario())


def test_pages() -> None:
    class Full(SmallHouse):
        async def agents(self, namespace: str) -> list[AgentInfo]:
            names = [f"a{n:02}" for n in range(25)] + ["b"]
            return [AgentInfo(name, None, None, 0, 1.0, 2.0) for name in names]

    async def scenario() -> None:
        async with visiting(Full()) as client:
            seen: list[str] = []
            more = True
            while more:
                after = f"&after={seen[-1]}" if seen else ""
                _, page = await ask(client, "GET", f"/v1/agents?limit=10&prefix=a{after}")
                seen += [agent["name"] for agent in page["data"]]
                more = page["has_more"]
                assert len(page["data"]) <= 10
            assert seen == [f"a{n:02}" for n in range(25)]
            for query, param in (("limit=0", "limit"), ("limit=x", "limit"), ("page=2", "page")):
                status, told = await ask(client, "GET", f"/v1/agents?{query}")
                assert (status, told["error"]["param"]) == (400, param)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/agents", {}, 400, "name"),
        ("/v1/agents", {"name": "a/b"}, 400, "name"),
        ("/v1/agents", {"name": "a", "ttl_s": 0}, 400, "ttl_s"),
        ("/v1/agents", {"name": "a", "ttl_s": "soon"}, 400, "ttl_s"),
        ("/v1/agents", {"name": "a", "overflow": "explode"}, 400, "overflow"),
        ("/v1/agents", {"name": "a", "colour": "red"}, 400, "colour"),
        ("/v1/agents/a%2Fb/say", {"content": "x"}, 400, "name"),
        (f"{ALICE}/say", {}, 400, "content"),
        (f"{ALICE}/say", {"content": "x", "messages": []}, 400, "content"),
        (f"{ALICE}/say", {"content": "x", "temperature": 9}, 400, "temperature"),
        (f"{ALICE}/say", {"content": "x", "key": ""}, 400, "key"),
        (f"{ALICE}/say", {"content": "x", "stream": "yes"}, 400, "stream"),
        (f"{ALICE}/hear", {"name": "bob"}, 400, "content"),
        (f"{ALICE}/fork", {}, 400, "name"),
        (f"{ALICE}/rollback", {}, 400, "to"),
        (f"{ALICE}/pin", {"segment": 7}, 400, "segment"),
        ("/v1/agents/nobody/fork", {"name": "eve"}, 404, "agent"),
        ("/v1/agents/nobody/rollback", {"to": "x"}, 404, "agent"),
    ],
)
def test_refusals_name_the_field(path: str, body: object, status: int, param: str) -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with visiting(house) as client:
            got, told = await ask(client, "POST", path, body)
            assert (got, told["error"]["param"]) == (status, param)
            assert not house.requests

    run(scenario())


def test_saying_in_one_piece() -> None:
    async def scenario() -> None:
        house = SmallHouse(api_key="sesame")
        async with (
            visiting(house, Authorization="Bearer sesame") as client,
            client.post(f"{ALICE}/say", json={"content": "Hi", "seed": 3, "key": "k"}) as response,
        ):
            told = await response.json()
            assert response.headers["X-Agent-Name"] == "alice"
            assert response.headers["X-Agent-Head"] == "0badc0de"
            assert response.headers["X-Cached-Tokens"] == "5"
        assert (told["text"], told["finish_reason"]) == (TEXT, "stop")
        (asked,) = house.requests
        assert asked.messages == (ChatMessage("user", "Hi"),)
        assert (asked.mode, asked.agent, asked.key) == ("say", "alice", "k")
        assert asked.namespace == derive_namespace("sesame")

    run(scenario())


def test_saying_in_a_stream() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            told = await events(client, {"content": "Hi", "stream": True})
            names = [name for name, _ in told]
            assert names == ["started", *["token"] * len(WORDS), "usage", "done"]
            assert all(frame["type"] == name for name, frame in told)
            assert "".join(f["text"] for name, f in told if name == "token") == TEXT

    run(scenario())


async def long_prompt(request: TurnRequest, reply: Reply) -> None:
    """Read a prompt for a while, in silence but for progress."""
    await reply.send(STARTED)
    for done in (8, 16):
        await asyncio.sleep(0.05)
        await reply.send(TurnProgress(21, done))
    await reply.send(TextDelta("Paris.", (1,)))
    await reply.send(DONE)


@pytest.mark.parametrize("wanted", [False, True])
def test_progress_is_told_to_whoever_asks(wanted: bool) -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse(long_prompt)) as client:
            told = await events(client, {"content": "Hi", "stream": True, "progress": wanted})
            read = [frame["done_tokens"] for name, frame in told if name == "progress"]
            assert read == ([8, 16] if wanted else [])
            headers = {"X-Stream-Progress": "true"} if wanted else {}
            async with client.post(
                "/v1/chat/completions", json=question(stream=True), headers=headers
            ) as response:
                assert response.headers["X-Cached-Tokens"] == "5"
                chunks = [data for _, data in parsed(await response.text())]
            objects = {chunk["object"] for chunk in chunks if chunk}
            expected = {"chat.completion.chunk"} | ({"greenroom.progress"} if wanted else set())
            assert objects == expected
            async with client.ws_connect(f"{ALICE}/stream") as socket:
                await socket.send_json({"type": "say", "content": "Hi", "progress": wanted})
                kinds = []
                while "done" not in kinds:
                    kinds.append((await socket.receive_json())["type"])
            assert ("progress" in kinds) is wanted

    run(scenario())


@pytest.mark.parametrize("path", ["/v1/chat/completions", f"{ALICE}/say"])
def test_a_stream_stays_alive_while_nothing_is_said(path: str) -> None:
    """Also while the turn waits for the stage, before there is anything to tell."""

    async def scenario() -> None:
        release = asyncio.Event()

        async def slow(request: TurnRequest, reply: Reply) -> None:
            await release.wait()
            await reply.send(STARTED)
            await reply.send(DONE)

        body = question(stream=True) if "chat" in path else {"content": "Hi", "stream": True}
        house = SmallHouse(slow, keepalive_s=0.01)
        async with visiting(house) as client, client.post(path, json=body) as response:
            for _ in range(3):
                assert await response.content.readline() == b": keep-alive\n"
                assert await response.content.readline() == b"\n"
            release.set()
            told = parsed(await response.text())
            assert [data for name, data in told if name != ":"]

    run(scenario())


@pytest.mark.parametrize("path", ["/v1/chat/completions", f"{ALICE}/say"])
@pytest.mark.parametrize("late", [False, True])
def test_what_goes_wrong_is_a_status_or_an_event_and_never_silence(path: str, late: bool) -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def refuse(request: TurnRequest, reply: Reply) -> None:
            await release.wait()
            raise MailboxFull("alice", 3)

        if not late:
            release.set()
        body = question(stream=True) if "chat" in path else {"content": "Hi", "stream": True}
        house = SmallHouse(refuse, keepalive_s=0.01 if late else 60.0)
        async with visiting(house) as client, client.post(path, json=body) as response:
            if not late:
                assert response.status == 429
                assert (await response.json())["error"]["code"] == "mailbox_full"
                return
            assert await response.content.readline() == b": keep-alive\n"
            assert await response.content.readline() == b"\n"
            release.set()
            last = parsed(await response.text())[-1][1]
            assert last["error"]["code"] == "mailbox_full"
            if "say" in path:
                assert (last["status"], last["retry_after_s"]) == (429, 1)

    run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_turn(stream: bool) -> None:
    async def scenario() -> None:
        house = SmallHouse(hang, keepalive_s=0.01)
        async with visiting(house) as client:
            body = {"content": "Hi", "stream": stream}
            asking = asyncio.create_task(ask(client, "POST", f"{ALICE}/say", body))
            await house.opened.wait()
            asking.cancel()
            await house.left.wait()

    run(scenario())
