"""Changing the model of a running house, over the administrative routes, with real models."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import mlx.core as mx
import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.actors.scene_messages import Interrupted, Token
from greenroom.runtime.errors import ActorStopped
from greenroom.runtime.garbage import keep
from greenroom.runtime.layers import load_settings
from greenroom.runtime.scenario import Member, Scenario
from greenroom.runtime.scene_file import checked
from tests.house import SmallHouse, run, visiting
from tests.zoo import save_checkpoint

ADMIN = {"Authorization": "Bearer thyme"}
MB = 1 << 20


def _config(num_layers: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 256,
        "num_hidden_layers": num_layers,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "vocab_size": 49152,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    """Two models of about 100 MB, and one that does not load."""
    folder = tmp_path_factory.mktemp("models")
    for name, num_layers in (("one", 2), ("two", 3)):
        save_checkpoint(folder / name, default_model_path, _config(num_layers))
    save_checkpoint(folder / "broken", default_model_path, _config(1))
    (folder / "broken" / "model.safetensors").write_bytes(b"not a checkpoint")
    return folder


@asynccontextmanager
async def serving(home: Path, model: Path) -> AsyncIterator[aiohttp.ClientSession]:
    overrides = {"home": str(home), "model.name": str(model), "server.admin_key": "thyme"}
    settings = (await asyncio.to_thread(load_settings, overrides=overrides)).settings
    async with (
        open_house(settings) as house,
        serve_http(house, "127.0.0.1", 0) as url,
        aiohttp.ClientSession(url) as client,
    ):
        yield client


async def admin(
    client: aiohttp.ClientSession, method: str, path: str, body: object = None
) -> tuple[int, Any]:
    async with client.request(method, f"/admin/{path}", json=body, headers=ADMIN) as response:
        return response.status, await response.json()


async def say(client: aiohttp.ClientSession, name: str, content: str) -> tuple[int, Any, str]:
    """The status, the answer, and when to come back."""
    body = {"content": content, "temperature": 0, "max_tokens": 8}
    async with client.post(f"/v1/agents/{name}/say", json=body) as response:
        return response.status, await response.json(), response.headers.get("Retry-After", "")


def test_agents_keep_their_memory_of_each_model(models: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "home", models / "one") as client:
            _, first, _ = await say(client, "alice", "Tell me of the clocks in the hall.")
            known = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
            status, card = await admin(
                client, "POST", "models/swap", {"model": str(models / "two")}
            )
            assert status == 200
            _, shown = await admin(client, "GET", "models")
            assert shown["current"] == card
            assert "smollm2-135m" in {entry["name"] for entry in shown["available"]}
            status, other, _ = await say(client, "bob", "Tell me of the clocks in the hall.")
            assert (status, other["usage"]["cached_tokens"]) == (200, 0)
            # She stood in the other model's memory: what was said is known, its state is not.
            await admin(client, "POST", "models/swap", {"model": str(models / "one")})
            status, again, _ = await say(client, "alice", "And in the tower?")
            assert status == 200
            assert again["usage"]["cached_tokens"] >= 0.95 * known

    uvloop.run(scenario())


@pytest.mark.slow
def test_turns_end_first_and_whoever_comes_meanwhile_is_told_to_come_back(
    models: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "home", models / "one") as client:
            async with client.ws_connect("/v1/agents/alice/stream") as socket:
                await socket.send_json({"type": "say", "content": "Count.", "max_tokens": 200})
                frame = await socket.receive_json()
                assert frame["type"] == "started"
                swap = asyncio.create_task(
                    admin(client, "POST", "models/swap", {"model": str(models / "two")})
                )
                answers = []
                while not swap.done():
                    answers.append(await say(client, "bob", "Hello"))
                while frame["type"] not in ("done", "error"):
                    frame = await socket.receive_json()
                assert frame["type"] == "done"
                assert frame["usage"]["completion_tokens"] in range(1, 201)
            refused = [answer for answer in answers if answer[0] != 200]
            assert refused
            for status, told, retry_after in refused:
                assert status == 503
                assert told["error"]["type"] == "service_unavailable_error"
                assert int(retry_after) >= 1
            status, _, _ = await say(client, "bob", "Hello")
            assert status == 200

    uvloop.run(scenario())


def test_a_model_that_cannot_be_served_leaves_the_one_before_it(
    models: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "home", models / "one") as client:
            for name, statuses in (
                (str(models / "nowhere"), (404, 503)),
                (str(models / "broken"), (503,)),
            ):
                status, told = await admin(client, "POST", "models/swap", {"model": name})
                assert status in statuses, told
                status, told, _ = await say(client, "alice", "Hello")
                assert status == 200
                _, shown = await admin(client, "GET", "models")
                assert shown["current"]["name"] == "one"

    uvloop.run(scenario())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: reads /proc")
@pytest.mark.parametrize("kept", [False, True], ids=["", "with a large store"])
def test_memory_is_back_where_it_was_after_a_swap(models: Path, tmp_path: Path, kept: bool) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "home", models / "one") as client:
            sizes: list[int] = []
            arrays: list[int] = []
            for name in ("one", "two", "one", "two", "one"):
                await admin(client, "POST", "models/swap", {"model": str(models / name)})
                await say(client, "alice", "Hello")
                if kept:
                    keep()
                sizes.append(await asyncio.to_thread(resident_bytes))
                arrays.append(mx.get_active_memory())
            # A model is 100 MB: one that stayed would show.
            assert max(arrays) - min(arrays) < 20 * MB
            assert sizes[-1] - sizes[2] < 50 * MB
            assert sizes[-2] - sizes[1] < 50 * MB
            status, told = await admin(client, "POST", "models/offload")
            assert (status, told) == (200, {"ready": False})
            assert arrays[-1] - mx.get_active_memory() > 90 * MB
            assert sizes[-1] - await asyncio.to_thread(resident_bytes) > 50 * MB
            status, told, _ = await say(client, "alice", "Hello")
            assert (status, told["error"]["code"]) == (503, "unavailable")
            assert (await client.get("/health/ready")).status == 503
            _, shown = await admin(client, "GET", "models")
            assert shown["current"] is None
            await admin(client, "POST", "models/swap", {"model": str(models / "one")})
            assert (await say(client, "alice", "Hello"))[0] == 200

    try:
        uvloop.run(scenario())
    finally:
        gc.unfreeze()


def resident_bytes() -> int:
    """What this process holds in RAM."""
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) << 10


def test_caches_are_dropped_and_come_back(models: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "home", models / "one") as client:
            _, first, _ = await say(client, "alice", "Tell me of the clocks in the hall.")
            known = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
            status, told = await admin(client, "DELETE", "caches")
            assert status == 200
            assert told["hot"]["num_bytes"] == 0
            assert told["stage"]["memory"]["resident"] == 0
            _, again, _ = await say(client, "alice", "And in the tower?")
            assert again["usage"]["cached_tokens"] >= 0.95 * known

    uvloop.run(scenario())


def test_draining_refuses_new_turns_until_it_is_taken_back(models: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "home", models / "one") as client:
            assert await admin(client, "POST", "drain") == (200, {"ready": False})
            assert (await say(client, "alice", "Hello"))[0] == 503
            assert (await client.get("/health/ready")).status == 503
            assert await admin(client, "POST", "drain", {"draining": False}) == (
                200,
                {"ready": True},
            )
            assert (await say(client, "alice", "Hello"))[0] == 200

    uvloop.run(scenario())


def test_only_the_administrators_key_opens_these_routes() -> None:
    async def scenario() -> None:
        house = SmallHouse(api_key="sesame", admin_key="thyme")
        routes = (
            ("GET", "status"),
            ("GET", "models"),
            ("POST", "models/swap"),
            ("POST", "models/offload"),
            ("DELETE", "caches"),
            ("POST", "drain"),
        )
        async with visiting(house) as client:
            for method, path in routes:
                for key in ("", "sesame", "thyme "):
                    headers = {"Authorization": f"Bearer {key}x"}
                    async with client.request(
                        method, f"/admin/{path}", headers=headers
                    ) as response:
                        assert response.status == 401
            assert (house.is_ready, house.is_loaded, house.let_go_of) == (True, True, 0)
            status, told = await admin(client, "POST", "models/swap", {})
            assert (status, told["error"]["param"]) == (400, "model")
            status, told = await admin(client, "POST", "models/swap", {"model": "gpt-9"})
            assert status == 404
            assert (await admin(client, "DELETE", "caches"))[0] == 200
            assert house.let_go_of == 1
        async with visiting(SmallHouse(api_key="sesame")) as client:
            for method, path in routes:
                assert (await client.request(method, f"/admin/{path}")).status == 404

    run(scenario())


def test_a_scene_stops_before_its_agents_do_also_after_a_swap(models: Path, tmp_path: Path) -> None:
    """Its members come with the model, and so later than the theatre."""

    async def scenario() -> None:
        overrides = {"home": str(tmp_path / "home"), "model.name": str(models / "one")}
        settings = (await asyncio.to_thread(load_settings, overrides=overrides)).settings
        async with open_house(settings) as house:
            await house.swap(str(models / "two"))
            members = (Member(name="ann"), Member(name="bob"))
            await house.scenes.create("", checked(Scenario(name="tea", members=members)))
            channel = await house.scenes.perform("", "tea", turns=500)
            async for event in channel:
                if isinstance(event, Token):
                    break

        async def rest() -> None:
            async for event in channel:
                assert not isinstance(event, Interrupted)

        with pytest.raises(ActorStopped, match="theatre"):
            await rest()

    uvloop.run(scenario())
