"""A hostile user, with raw sockets and at a live server: whatever is sent is answered as documented
or hung up on, nothing is logged as a failure of ours, and the next caller is served."""

import asyncio
import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import uvloop

from greenroom.actors.http import serve_http
from tests.house import SmallHouse, run
from tests.server import Server
from tests.test_security import port_of

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
DEEP = 20_000


async def post(
    url: str, path: str, body: object, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """The status and the answer; ``bytes`` and ``str`` go as they are."""
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    data = BytesIO(text if isinstance(text, bytes) else text.encode())
    async with (
        aiohttp.ClientSession(url) as client,
        client.post(path, data=data, headers=headers) as response,
    ):
        told = await response.text()
    return response.status, json.loads(told) if told.startswith("{") else told


def at_the_door(scenario: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Attack a small house; afterwards it is as it was."""

    async def attack() -> None:
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            await scenario(url)
            assert (await post(url, CHAT, HELLO))[0] == 200

    run(attack())


async def raw(url: str, sent: bytes) -> list[int]:
    """The statuses of what is answered before the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    got = b""
    try:
        writer.write(sent)
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                got += piece
    finally:
        writer.transport.abort()
    return [int(status) for status in re.findall(rb"HTTP/\d\.\d (\d{3}) ", got)]


def head(first: str, *lines: str) -> bytes:
    return "\r\n".join([first, "Host: localhost", *lines, "", ""]).encode("latin1")


GET = head("GET /health HTTP/1.1")
LAST = head("GET /health HTTP/1.1", "Connection: close")
CHUNKED = head(f"POST {CHAT} HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")
BODY = json.dumps(HELLO).encode()
LENGTH = f"Content-Length: {len(BODY)}"
CLOSE = "Connection: close"


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (GET + GET + LAST, [200, 200, 200]),
        (GET * 40 + LAST, [200] * 41),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH) + BODY + LAST, [200, 200]),
        (CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n", [200]),
        (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", [400]),
        (CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", [400]),
        (CHUNKED + b"2\r\n{}{}{}{}\r\n0\r\n\r\n", [400]),
        (CHUNKED + b"ffffffffffffffffff\r\n{}", [400]),
        (CHUNKED + b"2;" + b"x" * 20_000 + b"\r\n{}\r\n0\r\n\r\n", [400]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "Content-Length: 3", CLOSE) + BODY, [400]),
        (head(f"POST {CHAT} HTTP/1.1", "Content-Length: 1e3", CLOSE) + BODY, [400]),
        (head(f"POST {CHAT} HTTP/1.1", "Content-Length: 99999999999999999999", CLOSE), [400]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "Transfer-Encoding: x", CLOSE) + BODY, [400]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "X-Agent-Name: a\rb", CLOSE) + BODY, [400]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "X-Agent-Name: a\0b", CLOSE) + BODY, [400]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "X-Agent-Name: \xff\xfe", CLOSE) + BODY, [400]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "X-Request-Id: \xff", CLOSE) + BODY, [200]),
        (head("GET /health HTTP/1.1", *(f"X-{n}: y" for n in range(500))), [400]),
        (head("GET /health HTTP/9.9", CLOSE), [400]),
        (b"GET /health\r\n\r\n", [200]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        (head("CONNECT evil.example:443 HTTP/1.1", CLOSE), [404]),
        (head("OPTIONS * HTTP/1.1", CLOSE), [404]),
        (head("TRACE /health HTTP/1.1", CLOSE), [405]),
        (head("BREW /health HTTP/1.1", CLOSE), [400]),
        (head("GET http://evil.example/health HTTP/1.1", CLOSE), [200]),
        (head("GET /v1/agents/%ff%fe HTTP/1.1", CLOSE), [400]),
        (head("GET /v1/agents/%zz HTTP/1.1", CLOSE), [400]),
        (head("GET /v1/agents/a%00b HTTP/1.1", CLOSE), [400]),
        (head("GET /v1/agents/../../admin/status HTTP/1.1", CLOSE), [404]),
        (head("GET //admin/status HTTP/1.1", CLOSE), [404]),
        (head("GET /v1/agents?limit=0 HTTP/1.1", CLOSE), [400]),
        (head("GET /v1/agents?limit=1e9 HTTP/1.1", CLOSE), [400]),
        (head(f"GET /v1/agents?limit={'9' * 5000} HTTP/1.1", CLOSE), [400]),
        (head("GET /v1/agents?after=%00&prefix=%ff HTTP/1.1", CLOSE), [200]),
        (head(f"POST {CHAT} HTTP/1.1", LENGTH, "Expect: nonsense", CLOSE) + BODY, [417]),
    ],
)
def test_what_is_no_good_request(
    sent: bytes, statuses: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """The next one is served, and the log has neither a failure of ours nor what was sent."""

    async def scenario() -> None:
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            assert await raw(url, sent) == statuses
            assert await raw(url, LAST) == [200]

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert "Traceback" not in caplog.text
    assert "Hello" not in caplog.text


def test_a_body_that_is_said_to_be_too_large_is_not_waited_for() -> None:
    async def scenario() -> None:
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
            writer.write(head(f"POST {CHAT} HTTP/1.1", "Content-Length: 17000000") + BODY)
            assert b" 413 " in await reader.readline()
            writer.close()

    run(scenario())


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def call(arguments: object) -> str:
    """A history with a call that has these arguments."""
    function = {"name": "f", "arguments": arguments}
    called = {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}
    told = {"role": "tool", "tool_call_id": "1", "content": "x"}
    return json.dumps({**HELLO, "messages": [HELLO["messages"][0], called, told]})


def with_deep(field: str, depth: int) -> str:
    """A chat request that is nested so deeply in a field that takes anything."""
    tool = '[{"type": "function", "function": {"name": "f", "parameters": DEEP}}]'
    schema = '{"type": "json_schema", "json_schema": {"name": "x", "schema": DEEP}}'
    value = {"tools": tool, "response_format": schema}.get(field, "DEEP")
    return json.dumps(HELLO)[:-1] + f', "{field}": {value.replace("DEEP", nested(depth))}}}'


BAD_NUMBERS = ("1e999", "-1e999", "NaN", "Infinity", "9" * 400, "1e308", "0x10", "01", "-0", "true")


@pytest.mark.parametrize("number", BAD_NUMBERS)
def test_numbers_that_are_none(number: str) -> None:
    async def scenario(url: str) -> None:
        for field in ("max_tokens", "temperature", "top_p", "top_k", "seed", "n", "logit_bias"):
            given = f'{{"5": {number}}}' if field == "logit_bias" else number
            body = json.dumps({k: v for k, v in HELLO.items() if k != field})
            body = body[:-1] + f', "{field}": {given}}}'
            status, told = await post(url, CHAT, body)
            fine = number in ("-0", "1e308") and field in ("temperature", "seed", "top_k")
            assert status == 400 or (number == "-0" and status == 200) or fine, (body, told)

    at_the_door(scenario)


@pytest.mark.parametrize("depth", [50, 400, 900, DEEP])
@pytest.mark.parametrize("field", ["tools", "response_format", "chat_template_kwargs"])
def test_what_is_nested_deeply(field: str, depth: int) -> None:
    async def scenario(url: str) -> None:
        status, told = await post(url, CHAT, with_deep(field, depth))
        assert status == (200 if depth <= 50 else 400), told

    at_the_door(scenario)


@pytest.mark.parametrize("depth", [50, 900, DEEP])
def test_arguments_that_are_nested_deeply(depth: int) -> None:
    """As an object they are refused; as text they are the template's affair."""

    async def scenario(url: str) -> None:
        status, told = await post(url, CHAT, call(nested(depth)))
        assert status == 200, told
        body = call("DEEP").replace('"DEEP"', nested(depth))
        status, told = await post(url, CHAT, body)
        assert status == (200 if depth <= 50 else 400), told

    at_the_door(scenario)


LONE = '"\\ud800"'


def test_lone_surrogates() -> None:
    """They are no text: JSON may spell them, UTF-8 cannot."""

    async def scenario(url: str) -> None:
        message = '[{"role": "user", "content": "x"}]'
        for body in (
            f'{{"messages": [{{"role": "user", "content": {LONE}}}]}}',
            f'{{"messages": [{{"role": "user", "name": {LONE}, "content": "x"}}]}}',
            f'{{"messages": {message}, "stop": {LONE}}}',
            f'{{"messages": {message}, "agent": {LONE}}}',
            f'{{"messages": {message}, "model": {LONE}}}',
            f'{{"messages": {message}, "prompt_cache_key": {LONE}}}',
            f'{{"messages": {message}, {LONE}: 1}}',
            with_deep("chat_template_kwargs", 1).replace("1", LONE),
            with_deep("tools", 1).replace('"a":1', f'"description": {LONE}'),
            with_deep("response_format", 1).replace('"a":1', f'"const": {LONE}'),
        ):
            status, told = await post(url, CHAT, body)
            assert status == 400, (body, told)
        for path, body in (
            ("/v1/completions", f'{{"prompt": {LONE}}}'),
            ("/v1/agents", f'{{"name": "a", "system": {LONE}}}'),
            ("/v1/agents", f'{{"name": {LONE}}}'),
            ("/v1/agents/a/say", f'{{"content": {LONE}}}'),
            ("/v1/agents/a/say", f'{{"content": "x", "key": {LONE}}}'),
            ("/v1/agents/a/hear", f'{{"content": {LONE}}}'),
            ("/v1/agents/a/fork", f'{{"name": {LONE}}}'),
            ("/v1/agents/a/rollback", f'{{"to": {LONE}}}'),
            ("/v1/agents/a/pin", f'{{"segment": {LONE}}}'),
            ("/v1/scenes", f'{{"name": {LONE}, "members": []}}'),
        ):
            status, told = await post(url, path, body)
            assert status in (400, 404), (path, body, told)

    at_the_door(scenario)


NAMES = {
    "Zoë": 200,
    "Zoe\u0308": 200,  # the same, composed otherwise
    "李雷": 200,
    "a" * 128: 200,
    "a" * 129: 400,
    "\u202eevil": 400,
    "a b": 400,
    "🎭": 400,
    "\u0301a": 400,
    "...": 400,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_in_any_script(name: str) -> None:
    async def scenario(url: str) -> None:
        say = {"content": "Hello", "max_tokens": 1}
        status, told = await post(url, f"/v1/agents/{quote(name)}/say", say)
        assert status == NAMES[name], told
        status, told = await post(url, CHAT, HELLO, {"X-Agent-Name": name})
        assert status == NAMES[name], told
        status, told = await post(url, CHAT, {**HELLO, "agent": name})
        assert status == NAMES[name], told
        status, told = await post(url, "/v1/agents", {"name": name})
        assert status == NAMES[name], told
        if status == 200:
            assert told["name"] in ("Zoë", name)

    at_the_door(scenario)


def test_ten_megabytes_where_a_word_is_expected() -> None:
    big = "x" * 10_000_000

    async def scenario(url: str) -> None:
        for path, body in (
            (CHAT, {**HELLO, "agent": big}),
            (CHAT, {**HELLO, "model": big}),
            (CHAT, {**HELLO, "stop": big}),
            (CHAT, {**HELLO, "tool_choice": big}),
            (CHAT, {**HELLO, "response_format": {"type": big}}),
            (CHAT, {"messages": [{"role": big, "content": "x"}]}),
            (CHAT, {"messages": [{"role": "user", "content": [{"type": big}]}]}),
            (CHAT, {**HELLO, big: 1}),
            ("/v1/agents", {"name": big}),
            ("/v1/agents/a/say", {"content": "x", "key": big}),
            ("/v1/agents/a/fork", {"name": "b", "at": big}),
            ("/v1/agents/a/pin", {"segment": big}),
            ("/v1/agents/a/say", {"content": "x", "stop": [big]}),
        ):
            status, told = await post(url, path, body)
            assert status in (400, 404), (path, str(told)[:200])
            assert len(json.dumps(told)) < 2000, path  # what was sent is not sent back

    at_the_door(scenario)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_packed_small_and_unpacks_large(coding: str) -> None:
    zeros = b"0" * (64 << 20)
    packed = gzip.compress(zeros) if coding == "gzip" else zlib.compress(zeros)

    async def scenario(url: str) -> None:
        status, told = await post(url, CHAT, packed, {"Content-Encoding": coding})
        assert status in (400, 413), told

    at_the_door(scenario)


@pytest.fixture
def victim(server: Server) -> Iterator[Server]:
    """The live server: after each attack somebody else is answered, and it tells of no failure."""
    before = len(server.log)
    yield server
    status, _ = uvloop.run(post(server.url, CHAT, HELLO, {"X-Agent-Name": "bystander"}))
    assert status == 200
    assert "Traceback" not in server.log[before:], server.log[before:]


@pytest.mark.parametrize(
    "prompt", [[10**9], [-1], [1.5], [[]], [], {}, "", [["x"]], [[10**18]], [None], [0] * 9000]
)
def test_prompts_of_tokens_that_there_are_not(victim: Server, prompt: object) -> None:
    async def scenario() -> None:
        status, told = await post(
            victim.url, "/v1/completions", {"prompt": prompt, "max_tokens": 1}
        )
        assert status == 400, told

    uvloop.run(scenario())


def test_a_template_that_is_given_depths(victim: Server) -> None:
    """It is rendered, or refused; a probe computes nothing."""

    async def scenario() -> None:
        path = "/v1/agents/deep/probe"
        for body in (
            *(call(nested(depth)) for depth in (90, 900, DEEP)),
            *(with_deep(field, 90) for field in ("tools", "chat_template_kwargs")),
        ):
            status, told = await post(victim.url, path, body)
            assert status in (200, 400), told

    uvloop.run(scenario())


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"type": "string", "pattern": "(a*)*b" * 50},
        {"type": "string", "pattern": "((("},
        {"type": "string", "minLength": 10**12},
        {"type": "array", "minItems": 10**9, "items": {"type": "string"}},
        {"enum": []},
        {"enum": [str(n) for n in range(20_000)]},
        {"type": "number", "minimum": 1e308, "maximum": -1e308},
        {"type": "number", "multipleOf": 1e-300},
        {"allOf": [{"type": "string"}, {"type": "number"}]},
        {"properties": {f"p{n}": {"type": "string"} for n in range(2000)}},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "http://127.0.0.1:1/x"},
        {"type": 5},
        {"type": "object", "properties": {"\u0000": {"type": "string"}}, "required": ["\u0000"]},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_schemas_that_ask_too_much(victim: Server, schema: object) -> None:
    async def scenario() -> None:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        asking = asyncio.create_task(post(victim.url, CHAT, {**HELLO, "response_format": form}))
        while not asking.done():  # others are answered meanwhile
            async with asyncio.timeout(30), aiohttp.ClientSession(victim.url) as client:
                assert (await client.get("/health")).status == 200
            await asyncio.sleep(0.05)
        status, told = asking.result()
        assert status in (200, 400), told

    uvloop.run(scenario())


def test_forgetting_and_saying_at_once(victim: Server) -> None:
    async def scenario() -> None:
        path = "/v1/agents/fleeting"
        async with aiohttp.ClientSession(victim.url) as client:

            async def say() -> int:
                body = {"content": "Hello", "max_tokens": 2}
                async with client.post(f"{path}/say", json=body) as response:
                    await response.read()
                    return response.status

            async def forget() -> int:
                async with client.delete(path) as response:
                    await response.read()
                    return response.status

            said, forgotten = set[int](), set[int]()
            for _ in range(4):
                told = await asyncio.gather(say(), forget(), say(), forget(), say())
                said.update(told[::2])
                forgotten.update(told[1::2])
            # One whose agent vanished before its turn came may be told to try again.
            assert said <= {200, 503}
            assert forgotten <= {200, 404}
            await forget()
            async with client.get(path) as response:
                assert response.status == 404

    uvloop.run(scenario())


@pytest.mark.parametrize(
    "frame",
    [
        b"\x83\x80abcd",  # an opcode that there is not
        b"\xc1\x80abcd",  # a reserved bit
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcd",  # as long as can be
        b"\x81\x82abcd\xff\xfe",  # not UTF-8
        b"\x80\x80abcd",  # goes on from nothing
        b"\x89\xfe\x00\x80abcd" + b"x" * 128,  # a ping that is too long
        b"\x88\x82abcd\x00\x00",  # closes with a code that there is not
        b"\x09\x80abcd",  # a ping in pieces
    ],
)
def test_frames_that_break_the_protocol(frame: bytes) -> None:
    shake = head(
        "GET /v1/stream HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )

    async def scenario() -> None:
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            assert await raw(url, shake + frame) == [101]  # and then it hangs up

    run(scenario())


@pytest.mark.parametrize("lines", [[], ["Sec-WebSocket-Version: 8"], ["Sec-WebSocket-Key: x"]])
def test_handshakes_that_are_none(lines: list[str]) -> None:
    async def scenario() -> None:
        sent = head("GET /v1/stream HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", *lines)
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            assert await raw(url, sent + LAST) in ([400], [400, 200])

    run(scenario())
