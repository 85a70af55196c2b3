"""Each item of docs/security.md is attacked here, over real sockets."""

import asyncio
import json
import logging
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import uvloop
from aiohttp import web

from greenroom.actors.app import open_house
from greenroom.actors.http import build_app, serve_http
from greenroom.runtime.errors import ModelUnavailable, SettingsError
from greenroom.runtime.layers import load_settings
from greenroom.runtime.loader import load
from greenroom.runtime.namespace import derive_namespace
from tests.house import SmallHouse, hang, question, run, talk, tell, visiting
from tests.house import answer as answer_it
from tests.server import make_home

SOCKET = "/v1/stream"
PAGE = "https://chat.example.org"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, x-agent-name",
}


async def shake(client: aiohttp.ClientSession, **headers: str) -> int:
    """The status of a WebSocket handshake."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        async with client.ws_connect(SOCKET, headers=named):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


def test_each_key_opens_a_namespace_of_its_own() -> None:
    async def scenario() -> None:
        house = SmallHouse(api_key="sesame", api_keys=("thyme", "rosemary"))
        async with visiting(house) as client:
            for key in ("sesame", "thyme", "rosemary"):
                for headers in ({"Authorization": f"Bearer {key}"}, {"x_api_key": key}):
                    status, _ = await tell(client, question(), **headers)
                    assert status == 200
                    assert house.requests[-1].namespace == derive_namespace(key)
            for wrong in ("sesam", "sesamethyme", "sesame,thyme", "", "thyme "[:5] + "x"):
                status, _ = await tell(client, question(), x_api_key=wrong)
                assert status == 401
            assert await shake(client) == 401
            assert await shake(client, Authorization="Bearer thyme") == 101
            assert await shake(client, x_api_key="rosemary") == 101

    run(scenario())


def test_keys_in_api_keys_are_enough_to_listen_beyond_loopback() -> None:
    with pytest.raises(SettingsError, match="api_key"):
        build_app(SmallHouse(), host="0.0.0.0")
    assert isinstance(build_app(SmallHouse(api_keys=("k",)), host="0.0.0.0"), web.Application)


def test_cross_site_sockets_and_rebound_names_get_no_handshake() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse(allowed_origins=(PAGE,))) as client:
            for headers, status in (
                ({"Origin": "https://evil.example"}, 403),
                ({"Origin": "null"}, 403),
                ({"Host": "evil.example"}, 403),
                ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 403),
                ({"Origin": PAGE}, 101),
                ({"Origin": "http://localhost:3000"}, 101),
            ):
                assert await shake(client, **headers) == status, headers

    run(scenario())


def test_cors_is_off_unless_an_origin_is_allowed() -> None:
    async def scenario() -> None:
        for allowed, page, told in (
            ((), PAGE, False),
            ((), "http://localhost:3000", False),  # may call, but not read across origins
            ((PAGE,), PAGE, True),
            ((PAGE,), "https://evil.example", False),
            ((PAGE,), "http://localhost:3000", False),
        ):
            house = SmallHouse(allowed_origins=allowed, api_key="sesame")
            async with visiting(house) as client:
                headers = {"Origin": page}
                async with client.options(
                    "/v1/chat/completions", headers={**headers, **PREFLIGHT}
                ) as response:
                    assert (response.status == 204) is told
                    assert (response.headers.get("Access-Control-Allow-Origin") == page) is told
                    if told:
                        asked = PREFLIGHT["Access-Control-Request-Headers"]
                        assert response.headers["Access-Control-Allow-Headers"] == asked
                        assert "POST" in response.headers["Access-Control-Allow-Methods"]
                        # A cookie would let a page act for whoever visits it.
                        assert "Access-Control-Allow-Credentials" not in response.headers
                for key in ("sesame", "wrong"):  # an error is readable, too
                    async with client.post(
                        "/v1/chat/completions",
                        json=question(stream=True),
                        headers={**headers, "x-api-key": key},
                    ) as response:
                        given = response.headers.get("Access-Control-Allow-Origin")
                        assert (given == page) is told
                        assert ("Origin" in response.headers.getall("Vary", [])) is told

    run(scenario())


def test_a_preflight_has_no_effect_and_opens_nothing() -> None:
    async def scenario() -> None:
        house = SmallHouse(allowed_origins=(PAGE,), api_key="sesame")
        async with visiting(house) as client:
            # Only an OPTIONS request is one, whatever its headers say.
            headers = {"Origin": PAGE, **PREFLIGHT}
            status, _ = await tell(client, question(), **headers)
            assert status == 401
            assert not house.requests

    run(scenario())


@pytest.mark.parametrize(
    ("request_head", "statuses"),
    [
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 9000, (400,)),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost", (400, 414)),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nno colon", (400,)),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1", (400,)),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            (400,),
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00", (400,)),
    ],
    ids=["header", "line", "malformed", "length", "smuggling", "tls"],
)
def test_heads_that_are_too_long_or_malformed_are_refused(
    request_head: bytes, statuses: tuple[int, ...]
) -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with serve_http(house, "127.0.0.1", 0) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            writer.write(request_head + b"\r\n\r\n")
            status = (await reader.readline()).split(b" ")
            assert int(status[1]) in statuses
            writer.close()
            async with aiohttp.ClientSession(url) as client:
                assert (await client.get("/health")).status == 200
            assert not house.requests

    run(scenario())


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/agents/import"])
def test_a_body_that_trickles_in_holds_no_handler(path: str) -> None:
    async def scenario() -> None:
        house = SmallHouse(body_timeout_s=0.05)
        async with serve_http(house, "127.0.0.1", 0) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n{{"
            writer.write(head.encode())
            assert b" 408 " in await reader.readline()
            writer.close()
            assert not house.requests
            assert not house.imported

    run(scenario())


HEALTHY = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"", 0),
        (b"GET /health HTT", 0),
        (HEALTHY, 1),
        (HEALTHY + b"GET /health HTTP/1.1\r\nX: ", 1),
    ],
    ids=["silent", "first", "idle", "next"],
)
def test_a_head_that_never_ends_is_not_waited_for(sent: bytes, answers: int) -> None:
    """However the rest of it trickles in."""

    async def scenario() -> None:
        async with serve_http(SmallHouse(head_timeout_s=1.0), "127.0.0.1", 0) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            writer.write(sent)
            reading = asyncio.create_task(reader.read())
            while not reading.done():
                if sent.rpartition(b"\r\n")[2]:
                    writer.write(b"a")
                await asyncio.wait([reading], timeout=0.01)
            with suppress(ConnectionError):
                assert reading.result().count(b"HTTP/1.1 200 OK") == answers
            writer.close()

    run(scenario())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/agents/alice/say"])
def test_a_reader_who_takes_nothing_counts_as_gone(path: str) -> None:
    async def scenario() -> None:
        house = SmallHouse(talk, reader_timeout_s=0.1)
        async with serve_http(house, "127.0.0.1", 0) as url:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            asked = question(stream=True) if "chat" in path else {"content": "Hi", "stream": True}
            body = json.dumps(asked)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(f"{head}{body}".encode())
            await house.left.wait()
            writer.transport.abort()

    run(scenario())


def test_no_more_turns_than_are_served() -> None:
    """One more is refused before its body is read, whatever the door, and told when to come."""

    async def scenario() -> None:
        house = SmallHouse(hang, max_turns=1)
        async with (
            serve_http(house, "127.0.0.1", 0) as url,
            aiohttp.ClientSession(url) as client,
        ):
            asking = asyncio.create_task(tell(client, question()))
            await house.opened.wait()
            for path in ("/v1/chat/completions", "/v1/completions", "/v1/agents/alice/say"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
                writer.write(head.encode())
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nRetry-After: " in answer
                writer.close()
            async with client.ws_connect(SOCKET) as socket:
                await socket.send_json({"type": "say", "agent": "bob", "content": "Hello"})
                refused = await socket.receive_json()
                assert (refused["type"], refused["status"]) == ("error", 503)
                assert 1 <= refused["retry_after_s"] <= 30
            async with client.get("/metrics") as response:
                assert 'greenroom_rejected_total{reason="TooMany"} 4.0' in await response.text()
            asking.cancel()
            await house.left.wait()
            house.play = answer_it
            assert (await tell(client, question()))[0] == 200

    run(scenario())


def test_a_frame_that_is_too_large_ends_its_socket_and_no_other() -> None:
    async def scenario() -> None:
        house = SmallHouse(max_body_mb=1)
        async with (
            visiting(house) as client,
            client.ws_connect(SOCKET) as bad,
            client.ws_connect(SOCKET) as good,
        ):
            await bad.send_str("x" * (2 << 20))
            assert (await bad.receive()).type is aiohttp.WSMsgType.CLOSE
            assert bad.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
            await good.send_json({"type": "ping"})
            assert (await good.receive_json())["type"] == "pong"

    run(scenario())


@pytest.mark.parametrize("what", ["the model", "the tokenizer"])
def test_a_checkpoint_cannot_bring_code(
    what: str, tmp_path: Path, default_model_path: Path
) -> None:
    """What comes with a model is data: a file that wants to be run is not."""
    trap = tmp_path / "sprung"
    folder = tmp_path / "model"
    shutil.copytree(default_model_path, folder)
    (folder / "evil.py").write_text(f"open({str(trap)!r}, 'w').close()\nclass Evil: ...\n")
    if what == "the model":
        change(folder / "config.json", model_file="evil.py")
    else:
        change(
            folder / "tokenizer_config.json",
            tokenizer_class="Evil",
            auto_map={"AutoTokenizer": ["evil.Evil", None]},
        )
    # Loading it anyway, without the code, would do as well.
    with suppress(ModelUnavailable):
        load(folder, device="cpu")
    assert not trap.exists()


def change(file: Path, **fields: object) -> None:
    told = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(told | fields))


def test_what_is_written_is_for_its_owner_alone(tmp_path: Path, default_model_path: Path) -> None:
    home = make_home(tmp_path / "home")
    settings = load_settings(overrides={"home": str(home)}).settings
    before = os.umask(0)  # whatever the user's own mask is
    try:

        async def scenario() -> None:
            async with (
                open_house(settings) as house,
                serve_http(house, "127.0.0.1", 0) as url,
                aiohttp.ClientSession(url) as client,
            ):
                status, _ = await tell(client, question(max_tokens=2), X_Agent_Name="alice")
                assert status == 200

        uvloop.run(scenario())
    finally:
        os.umask(before)
    written = list(settings.store_path.rglob("*"))
    assert any(path.suffix == ".safetensors" for path in written)
    for path in (settings.store_path, *written):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_no_word_that_is_said_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At the default level, whichever door it came by, well or badly formed."""

    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            secret = {"content": "whisper"}
            for path, body in (
                ("/v1/agents/alice/say", secret),
                ("/v1/agents/alice/say", {**secret, "stream": True}),
                ("/v1/agents/alice/say", {**secret, "seed": "whisper"}),
                ("/v1/agents/alice/hear", secret),
                ("/v1/agents", {"name": "bob", "system": "whisper"}),
                ("/v1/agents/alice/probe", secret),
            ):
                await (await client.post(path, json=body)).read()
            async with client.ws_connect(SOCKET) as socket:
                await socket.send_json({"type": "say", "agent": "alice", **secret})
                while (await socket.receive_json())["type"] != "done":
                    pass
                await socket.send_str('{"whisper')
                await socket.receive_json()

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert "/v1/agents/alice/say 200" in caplog.text
    for word in ("whisper", "Paris", "Be brief"):
        assert word not in caplog.text
