"""The OpenAPI document: it is one, it has every route, and the server does as it says."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import uvloop

from greenroom.actors.http import build_app, serve_http
from greenroom.actors.openapi import document
from tests.house import SmallHouse, question, run, visiting
from tests.server import make_home, running

UNDESCRIBED = {("GET", "/openapi.json")}


async def described(client: Any) -> dict[str, Any]:
    async with client.get("/openapi.json") as response:
        assert response.status == 200
        told: dict[str, Any] = msgspec.json.decode(await response.read())
        return told


def test_every_route_is_described_and_nothing_else() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        app = build_app(house)
        served = {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
        async with visiting(house) as client:
            told = await described(client)
        paths = {
            (method.upper(), path)
            for path, operations in told["paths"].items()
            for method in operations
        }
        assert paths == served - UNDESCRIBED

    run(scenario())


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    async def scenario() -> None:
        async with visiting(SmallHouse()) as client:
            told = await described(client)
        schemas = told["components"]["schemas"]
        for name, schema in schemas.items():
            jsonschema.Draft202012Validator.check_schema(schema)
            assert name
        for reference in references(told):
            assert reference.removeprefix("#/components/schemas/") in schemas

    run(scenario())


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_answers_are_as_described() -> None:
    async def scenario() -> None:
        house = SmallHouse(admin_key="thyme")
        async with visiting(house) as client:
            told = await described(client)
            for method, path, body in (
                ("POST", "/v1/chat/completions", question()),
                ("POST", "/v1/agents", {"name": "alice"}),
                ("GET", "/v1/agents", None),
                ("GET", "/v1/agents/alice", None),
                ("POST", "/v1/agents/alice/say", {"content": "Hi"}),
                ("POST", "/v1/agents/alice/hear", {"content": "Hi"}),
                ("GET", "/v1/agents/alice/log", None),
                ("POST", "/v1/agents/alice/pin", None),
                ("DELETE", "/v1/agents/alice", None),
                ("GET", "/admin/status", None),
                ("GET", "/admin/models", None),
                ("POST", "/v1/agents/alice/say", {}),
                ("GET", "/v1/agents/nobody", None),
                ("GET", "/health/ready", None),
            ):
                house.is_ready = path != "/health/ready"
                headers = {"x-api-key": "thyme"}
                async with client.request(method, path, json=body, headers=headers) as response:
                    answer = await response.json()
                    status = str(response.status)
                pattern = path.replace("/alice", "/{name}").replace("/nobody", "/{name}")
                operation = told["paths"][pattern][method.lower()]
                content = operation["responses"][status]["content"]["application/json"]
                schema = {"$ref": content["schema"]["$ref"], "components": told["components"]}
                jsonschema.Draft202012Validator(schema).validate(answer)

    run(scenario())


def test_the_document_does_not_depend_on_the_order_of_a_set() -> None:
    app = build_app(SmallHouse())
    assert app is not None
    assert document([]) == document([])


@pytest.fixture
def url() -> Iterator[str]:
    """A small house in a thread of its own: what examines it runs beside it."""
    ready, done = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with serve_http(SmallHouse(admin_key="thyme"), "127.0.0.1", 0) as found:
            urls.append(found)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    assert ready.wait(20)
    yield urls[0]
    done.set()
    thread.join()


CONFORMING = "status_code_conformance,response_schema_conformance"


def examine(url: str, *more: str, checks: str = f"not_a_server_error,{CONFORMING}") -> None:
    """Schemathesis: what it makes of the document brings no undescribed status, and no 5xx."""
    command = (
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis as s; s()"),
        *("run", f"{url}/openapi.json", "--checks", checks),
        *("--phases", "examples,coverage,fuzzing", "--seed", "7", "--request-timeout", "60"),
        *("--exclude-path-regex", "/stream$"),  # tests/test_frames.py has those
        *more,
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def examine_operators(url: str, *more: str) -> None:
    """What changes the model brings a 503 to whoever comes meanwhile, which is described."""
    key = ("--header", "x-api-key: thyme", "--include-path-regex", "^/admin")
    examine(url, *key, *more, checks=CONFORMING)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing_at_the_doors(url: str) -> None:
    examine(url, "--max-examples", "60", "--exclude-path-regex", "^/admin")
    examine_operators(url, "--max-examples", "60")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_schemathesis_finds_nothing_in_a_real_server(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home"), "--set", "server.admin_key=thyme") as server:
        slow = "^/admin|heard|completions|say"
        examine(server.url, "--max-examples", "8", "--exclude-path-regex", slow)
        examine_operators(server.url, "--max-examples", "8")
