"""Each item of docs/security.md is attacked here, over real sockets."""

import aiohttp
import pytest
from aiohttp import web

from greenroom.actors.guard import derive_namespace
from greenroom.actors.http import build_app
from greenroom.runtime.errors import SettingsError
from tests.house import SmallHouse, question, run, tell, visiting

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
