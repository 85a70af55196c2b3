"""What is thrown at a server and must leave it serving: garbage, idle, slow and leaving peers."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec
import pytest
import uvloop

from benchmarks.overload import crowd
from greenroom.runtime.open_files import allow_many_sockets
from tests.house import question
from tests.server import make_home, running
from tests.test_security import port_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/agents",
    "/v1/agents/alice/say",
    "/v1/agents/alice/hear",
    "/v1/agents/alice/fork",
    "/v1/agents/import",
)
HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server, for all of them: what one does is felt by the next."""
    home = make_home(tmp_path_factory.mktemp("abuse") / "home")
    patience = [f"server.{what}_timeout_s=20" for what in ("head", "body", "reader")]
    with running(home, *(part for each in patience for part in ("--set", each))) as server:
        yield server.url
        assert "Traceback" not in server.log, server.log[-4000:]


async def still_serves(url: str) -> None:
    """It answers, quickly and slowly."""
    async with asyncio.timeout(60), aiohttp.ClientSession(url) as client:
        assert (await client.get("/health")).status == 200
        async with client.post(
            "/v1/chat/completions", json=question(max_tokens=2), headers={"X-Agent-Name": "sane"}
        ) as response:
            assert response.status == 200, await response.text()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def bodies(dice: random.Random) -> list[bytes]:
    """Random bytes, huge numbers, deep nesting, invalid UTF-8, and good requests that were hurt."""
    good = msgspec.json.encode(question(max_tokens=2, stop=["a"], seed=3))
    hurt = bytearray(good)
    for _ in range(3):
        hurt[dice.randrange(len(hurt))] = dice.randrange(256)
    return [
        dice.randbytes(dice.randrange(1, 400)),
        bytes(hurt),
        good[: dice.randrange(len(good))],
        b'{"messages": [{"role": "user", "content": "\xff\xfe\xed\xa0\x80"}]}',
        b"[" * 100_000,
        b'{"content": ' * 20_000 + b"1" + b"}" * 20_000,
        b'{"content": "x", "max_tokens": 1e999, "seed": ' + b"9" * 5000 + b"}",
        b'{"content": "x", "temperature": -1e308, "top_k": 99999999999999999999999}',
        b'{"content": "x", "max_tokens": NaN}',
        b'{"name": "\\u0000", "content": "\\ud800"}',
    ]


def test_garbage_is_refused(url: str) -> None:
    async def scenario() -> None:
        dice = random.Random(11)
        async with aiohttp.ClientSession(url) as client:
            for _ in range(12):
                for path in PATHS:
                    for body in bodies(dice):
                        async with client.post(path, data=body) as response:
                            assert response.status < 500, (path, body[:80], await response.text())
        async with aiohttp.ClientSession(url) as client, client.ws_connect("/v1/stream") as socket:
            for _ in range(20):
                for body in bodies(dice):
                    await socket.send_str(body.decode("latin1"))
                    frame = await socket.receive_json()
                    while frame["type"] not in ("error", "done", "heard", "pong"):
                        frame = await socket.receive_json()
        await still_serves(url)

    uvloop.run(scenario())


def test_raw_bytes_and_bodies_that_break_off(url: str) -> None:
    async def scenario() -> None:
        dice = random.Random(12)
        for n in range(200):
            async with connected(url) as (_, writer):
                if n % 2:
                    writer.write(dice.randbytes(dice.randrange(1, 2000)))
                else:
                    body = msgspec.json.encode(question(stream=True, max_tokens=4))
                    head = HEAD.format(dice.choice(PATHS), len(body) + 7).encode()
                    writer.write((head + body)[: dice.randrange(1, len(head) + len(body))])
                await writer.drain()
        await still_serves(url)

    uvloop.run(scenario())


def test_a_thousand_idle_and_slow_peers_keep_nobody_out(url: str) -> None:
    allow_many_sockets()

    async def scenario() -> None:
        peers = []
        try:
            for n in range(1000):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
                if n % 3 == 1:
                    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc")
                elif n % 3 == 2:
                    writer.write(HEAD.format("/v1/chat/completions", 500).encode() + b"{")
                peers.append((reader, writer))
            for _ in range(5):
                for _, writer in peers:
                    if not writer.is_closing():
                        writer.write(b"a")
                await still_serves(url)
            async with asyncio.timeout(200):  # none of them is kept for ever
                for reader, _ in peers:
                    with suppress(ConnectionError):
                        await reader.read()
        finally:
            for _, writer in peers:
                writer.transport.abort()
        await still_serves(url)

    uvloop.run(scenario())


def test_clients_that_leave_at_any_moment(url: str) -> None:
    """Before their head is read, while the prompt is, while the answer comes; by either door."""

    async def scenario() -> None:
        dice = random.Random(13)
        prompt = "Clocks are wound on Mondays. " * 40
        for n in range(40):
            if n % 2:
                body = msgspec.json.encode(
                    {"messages": [{"role": "user", "content": prompt}], "stream": True}
                )
                async with connected(url) as (reader, writer):
                    writer.write(HEAD.format("/v1/chat/completions", len(body)).encode() + body)
                    for _ in range(dice.randrange(4)):
                        await reader.readline()
            else:
                async with (
                    aiohttp.ClientSession(url) as client,
                    client.ws_connect(f"/v1/agents/left{n}/stream") as socket,
                ):
                    await socket.send_json({"type": "say", "content": prompt})
                    for _ in range(dice.randrange(3)):
                        await socket.receive_json()
        async with aiohttp.ClientSession(url) as client, asyncio.timeout(60):
            while await busy(client):
                pass
        await still_serves(url)

    uvloop.run(scenario())


async def busy(client: aiohttp.ClientSession) -> bool:
    """Whether anything is on stage or waits for it."""
    async with client.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    now = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    return now["greenroom_stage_waiting"] + now["greenroom_stage_running"] > 0


def test_ten_times_too_much_is_answered_all_the_same(tmp_path: Path) -> None:
    """Whoever is refused is told when to come back, and everybody has an answer in the end."""
    with running(make_home(tmp_path / "home"), "--set", "server.max_turns=4") as server:
        names = [f"flood{n}" for n in range(20)]
        served = uvloop.run(crowd(server.url, 20, names, 2))
    assert served.answers == [2] * 20
    assert served.refusals > 0
