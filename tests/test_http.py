"""The HTTP door, over real sockets: answers, streams, refusals, and clients that leave."""

import asyncio
import json
import logging
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from aiohttp import web

from greenroom.actors.http import build_app, serve_http
from greenroom.actors.openai import read_chat
from greenroom.runtime.errors import (
    ActorFailed,
    Conflict,
    InvalidRequest,
    MailboxFull,
    ModelUnavailable,
    SettingsError,
    Unavailable,
)
from greenroom.runtime.namespace import derive_namespace
from greenroom.runtime.records import TextDelta, TurnRequest
from tests.house import (
    DONE,
    STARTED,
    WORDS,
    Reply,
    SmallHouse,
    hang,
    question,
    run,
    talk,
    tell,
    visiting,
)

TEXT = "".join(WORDS)


async def chunks(client: aiohttp.ClientSession, body: object) -> list[dict[str, Any] | str]:
    """The events of a stream, each decoded unless it is ``[DONE]``."""
    events: list[dict[str, Any] | str] = []
    async with client.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["X-Agent-Name"] == "alice"
        for event in (await response.text()).removesuffix("\n\n").split("\n\n"):
            data = event.removeprefix("data: ")
            events.append(data if data == "[DONE]" else json.loads(data))
    return events


def test_a_whole_answer() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with (
            visiting(house) as client,
            client.post("/v1/chat/completions", json=question(model="org/Smol")) as response,
        ):
            body = await response.json()
            assert response.status == 200
            assert response.headers["X-Agent-Name"] == "alice"
            assert response.headers["X-Agent-Head"] == "0badc0de"
            assert response.headers["X-Request-Id"].startswith("req_")
        assert body["object"] == "chat.completion"
        assert body["model"] == "smol"
        choice = body["choices"][0]
        assert choice["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
        assert choice["finish_reason"] == "stop"
        assert body["usage"] == {
            "prompt_tokens": 21,
            "completion_tokens": 7,
            "total_tokens": 28,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }
        assert body["greenroom"]["timings"]["ttft_ms"] == 3.0
        assert not house.left.is_set()

    run(scenario())


def test_a_stream() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            *events, last, done = await chunks(client, question(stream=True))
        assert done == "[DONE]"
        assert isinstance(last, dict)
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["greenroom"]["head"] == "0badc0de"
        deltas = [e["choices"][0]["delta"] for e in events if isinstance(e, dict)]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert "".join(delta["content"] for delta in deltas) == TEXT
        assert all("usage" not in event for event in (*events, last))

    run(scenario())


def test_a_stream_with_usage() -> None:
    async def scenario() -> None:
        body = question(stream=True, stream_options={"include_usage": True})
        async with visiting(SmallHouse()) as client:
            *events, last, _ = await chunks(client, body)
        assert isinstance(last, dict)
        assert last["choices"] == []
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
        assert all(isinstance(event, dict) and event["usage"] is None for event in events)

    run(scenario())


def test_the_official_client() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with (
            serve_http(house, "127.0.0.1", 0) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        ):
            messages: Any = [{"role": "user", "content": "The capital of France?"}]
            whole = await client.chat.completions.create(model="default", messages=messages)
            assert whole.choices[0].message.content == TEXT
            assert whole.usage is not None
            assert whole.usage.prompt_tokens_details is not None
            assert whole.usage.prompt_tokens_details.cached_tokens == 5
            stream = await client.chat.completions.create(
                model="default",
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
                extra_headers={"X-Agent-Name": "alice"},
            )
            seen = [chunk async for chunk in stream]
            assert "".join(c.choices[0].delta.content or "" for c in seen if c.choices) == TEXT
            assert seen[-1].usage is not None
            assert house.requests[-1].agent == "alice"
            assert [model.id async for model in client.models.list()] == ["smol"]
            assert (await client.models.retrieve("org/Smol")).id == "smol"
            with pytest.raises(openai.NotFoundError) as missing:
                await client.chat.completions.create(model="gpt-9", messages=messages)
            assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
            house.refusal = MailboxFull("alice", 2)
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model="default", messages=messages)

    run(scenario())


def test_an_error_in_mid_stream_is_an_event_and_the_end() -> None:
    async def stumble(request: TurnRequest, reply: Reply) -> None:
        await reply.send(STARTED)
        await reply.send(TextDelta("The", (1,)))
        raise ActorFailed("stage", "RuntimeError")

    async def scenario() -> None:
        async with visiting(SmallHouse(stumble)) as client:
            *_, last = await chunks(client, question(stream=True))
            assert isinstance(last, dict)
            assert last["error"]["type"] == "service_unavailable_error"
            status, body = await tell(client, question())
            assert (status, "choices" in body) == (503, False)

    run(scenario())


@pytest.mark.parametrize("early", [None, STARTED, DONE])
def test_a_turn_that_breaks_off_is_never_an_answer(early: Any) -> None:
    """A channel that closes without a TurnDone is our own defect: a 500, not a short answer."""

    async def broken(request: TurnRequest, reply: Reply) -> None:
        if early is not None:
            await reply.send(early)

    async def scenario() -> None:
        async with visiting(SmallHouse(broken)) as client:
            status, body = await tell(client, question())
            assert (status, body["error"]["code"]) == (500, "internal")
            if early is STARTED:
                *_, last = await chunks(client, question(stream=True))
                assert isinstance(last, dict)
                assert last["error"]["code"] == "internal"

    run(scenario())


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidRequest("long", param="messages", code="context_length_exceeded"),
         400, "invalid_request_error", "context_length_exceeded"),
        (Conflict("other", param="system"), 409, "invalid_request_error", None),
        (MailboxFull("alice", 3), 429, "rate_limit_error", "mailbox_full"),
        (Unavailable("later", retry_after_s=2.5), 503, "service_unavailable_error", "unavailable"),
        (ModelUnavailable("no model"), 503, "service_unavailable_error", "model_unavailable"),
        (ZeroDivisionError("secret"), 500, "server_error", "internal"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["opening", "first event"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_an_error_becomes(
    error: Exception, status: int, kind: str, code: str | None, where: str, stream: bool
) -> None:
    async def refuse(request: TurnRequest, reply: Reply) -> None:
        raise error

    async def scenario() -> None:
        house = SmallHouse(refuse)
        if where == "opening":
            house.refusal = error
        async with (
            visiting(house) as client,
            client.post("/v1/chat/completions", json=question(stream=stream)) as response,
        ):
            told = (await response.json())["error"]
            assert (response.status, told["type"], told["code"]) == (status, kind, code)
            if isinstance(error, InvalidRequest):
                assert told["param"] == error.param
            if isinstance(error, Unavailable):
                assert int(response.headers["Retry-After"]) >= error.retry_after_s
            assert "secret" not in told["message"]
            if status == 500:
                assert response.headers["X-Request-Id"] in told["message"]

    run(scenario())


def test_refusals_come_before_any_work_and_the_server_goes_on() -> None:
    async def scenario() -> None:
        house = SmallHouse(max_body_mb=1)
        async with visiting(house) as client:
            for body, headers, status, param in (
                (b"{", {}, 400, None),
                (b"\xff\x00", {}, 400, None),
                (question(messages=[]), {}, 400, "messages"),
                (question(temperature="hot"), {}, 400, "temperature"),
                (question(model="gpt-9"), {}, 404, "model"),
                (question(), {"X_Agent_Name": "a/b"}, 400, "X-Agent-Name"),
                (question(user="x" * (1 << 20)), {}, 413, None),
            ):
                got, told = await tell(client, body, **headers)
                assert (got, told["error"]["param"]) == (status, param)
            assert not house.requests
            # A wrong content type is no reason to refuse.
            status, _ = await tell(client, question(), Content_Type="text/plain")
            assert status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_path"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-9", 404, "model_not_found"),
        ("GET", "/v1/agents/a%2Fb/stream", 400, "invalid_name"),
        ("GET", "/v1/agents/alice/stream", 400, "http_error"),
    ],
)
def test_wrong_paths_and_methods(method: str, path: str, status: int, code: str) -> None:
    async def scenario() -> None:
        async with (
            visiting(SmallHouse()) as client,
            client.request(method, path) as response,
        ):
            assert response.status == status
            assert (await response.json())["error"]["code"] == code
            assert ("Allow" in response.headers) == (status == 405)

    run(scenario())


def test_the_small_answers() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        async with visiting(house) as client:
            async with client.get("/health") as response:
                assert (response.status, await response.json()) == (200, {"status": "ok"})
            for ready, status in ((True, 200), (False, 503)):
                house.is_ready = ready
                async with client.get("/health/ready") as response:
                    assert response.status == status
            async with client.get("/v1/models/org/Smol") as response:
                told = await response.json()
                assert told["greenroom"] == {"hf_id": "org/Smol", "context_window": 2048}
            async with client.get("/v1/agents") as response:
                told = await response.json()
                assert told["data"][0]["name"] == "alice"
            assert house.namespaces == [""]

    run(scenario())


def test_request_ids_are_echoed_when_decent() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            for given, kept in (("my-id.7", True), ("no spaces!", False), ("x" * 200, False)):
                async with client.get("/health", headers={"X-Request-Id": given}) as response:
                    assert (response.headers["X-Request-Id"] == given) is kept
            async with client.get("/nowhere", headers={"X-Request-Id": "e1"}) as response:
                assert response.headers["X-Request-Id"] == "e1"

    run(scenario())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_during_prefill_cancels_the_turn(stream: bool) -> None:
    async def scenario() -> None:
        house = SmallHouse(hang)
        async with serve_http(house, "127.0.0.1", 0) as url:
            client = aiohttp.ClientSession(url)
            asking = asyncio.create_task(tell(client, question(stream=stream)))
            await house.opened.wait()
            assert not house.left.is_set()
            asking.cancel()
            await client.close()
            await house.left.wait()

    run(scenario())


def test_a_client_that_leaves_in_mid_stream_cancels_the_turn() -> None:
    async def scenario() -> None:
        house = SmallHouse(talk)
        async with visiting(house) as client:
            response = await client.post("/v1/chat/completions", json=question(stream=True))
            await response.content.readline()
            response.close()
            await house.left.wait()
            house.play = hang
            assert (await client.get("/health")).status == 200

    run(scenario())


def test_a_reader_that_stops_reading_holds_up_only_its_own_turn() -> None:
    async def scenario() -> None:
        house = SmallHouse(talk)
        async with visiting(house) as client:
            stuck = await client.post("/v1/chat/completions", json=question(stream=True))
            house.play = hang
            async with client.get("/health") as response:
                assert response.status == 200
            assert not house.left.is_set()
            stuck.close()
            await house.left.wait()

    run(scenario())


def test_a_key_opens_its_own_namespace() -> None:
    async def scenario() -> None:
        house = SmallHouse(api_key="sesame")
        async with visiting(house) as client:
            for headers, status in (
                ({}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({"Authorization": "Basic sesame"}, 401),
                ({"Authorization": "Bearer sesamé"}, 401),
                ({"Authorization": "Bearer sesame"}, 200),
                ({"x-api-key": "sesame"}, 200),
            ):
                async with client.get("/v1/agents", headers=headers) as response:
                    assert response.status == status
                    assert ("WWW-Authenticate" in response.headers) == (status == 401)
            assert (await client.get("/health")).status == 200
            status, _ = await tell(client, question(), Authorization="Bearer sesame")
            assert status == 200
        namespace = derive_namespace("sesame")
        assert namespace not in ("", "sesame")
        assert house.namespaces == [namespace] * 2
        assert house.requests[0].namespace == namespace

    run(scenario())


def test_pages_of_other_sites_and_rebound_names_are_kept_out() -> None:
    async def scenario() -> None:
        house = SmallHouse(allowed_origins=("https://chat.example.org",))
        async with visiting(house) as client:
            for headers, status in (
                ({"Origin": "https://evil.example"}, 403),
                ({"Origin": "null"}, 403),
                ({"Origin": "http://127.0.0.1.evil.example"}, 403),
                ({"Origin": "http://[broken"}, 403),
                ({"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}, 403),
                ({"Host": "evil.example"}, 403),
                ({"Origin": "https://chat.example.org"}, 200),
                ({"Origin": "http://localhost:3000"}, 200),
                ({"Host": "localhost:8000"}, 200),
                ({"Host": "[::1]:8000"}, 200),
            ):
                async with client.get("/v1/models", headers=headers) as response:
                    assert response.status == status, headers
                async with client.get("/v1/agents/a/stream", headers=headers) as response:
                    assert response.status == (status if status == 403 else 400), headers

    run(scenario())


def test_the_administrative_routes_have_a_key_of_their_own_and_are_off_without() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse(api_key="sesame", admin_key="thyme")) as client:
            for token, status in (("sesame", 401), ("thyme", 200)):
                headers = {"Authorization": f"Bearer {token}"}
                async with client.get("/admin/status", headers=headers) as response:
                    assert response.status == status
                    if status == 200:
                        assert (await response.json())["stage"]["jobs"] == 3
        async with visiting(SmallHouse()) as client, client.get("/admin/status") as response:
            assert response.status == 404
            assert "server.admin_key" in (await response.json())["error"]["message"]

    run(scenario())


def test_listening_beyond_loopback_needs_a_key() -> None:
    with pytest.raises(SettingsError, match="api_key"):
        build_app(SmallHouse(), host="0.0.0.0")
    assert isinstance(build_app(SmallHouse(api_key="k"), host="0.0.0.0"), web.Application)


def test_a_port_in_use_is_one_clear_sentence() -> None:
    async def scenario() -> None:
        async with serve_http(SmallHouse(), "127.0.0.1", 0) as url:
            port = int(url.rpartition(":")[2])
            with pytest.raises(SettingsError, match=f"Port {port} on 127.0.0.1 is in use"):
                async with serve_http(SmallHouse(), "127.0.0.1", port):
                    pass

    run(scenario())


def test_no_prompt_is_logged_at_info(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            await tell(client, question(user="whisper"))
            await tell(client, question(temperature="whisper"))

    with caplog.at_level(logging.INFO):
        run(scenario())
    assert "/v1/chat/completions 200" in caplog.text
    assert "/v1/chat/completions 400" in caplog.text
    for secret in ("capital", "whisper", "Paris"):
        assert secret not in caplog.text


def test_the_answer_is_the_typed_request_of_the_body() -> None:
    """What the house gets is what read_chat makes of the body: nothing is lost on the way."""

    async def scenario() -> None:
        house = SmallHouse()
        body = question(max_tokens=5, stop="x", seed=1, temperature=0)
        async with visiting(house) as client:
            await tell(client, body, X_Agent_Name="alice")
        raw = msgspec.json.encode(body)
        assert house.requests == [
            read_chat(raw, headers={"x-agent-name": "alice"}, namespace="").turn
        ]

    run(scenario())
