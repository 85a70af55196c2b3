"""The HTTP server: routes, the edge where errors become answers, and the listening socket."""

import errno
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from greenroom.actors.agents_door import AgentsDoor
from greenroom.actors.answers import json_answer
from greenroom.actors.chat import ChatDoor
from greenroom.actors.cors import Cors
from greenroom.actors.guard import Guard, guarding
from greenroom.actors.house import House
from greenroom.actors.legacy_door import LegacyDoor
from greenroom.actors.metrics import MetricsDoor
from greenroom.actors.portage_door import PortageDoor
from greenroom.actors.problems import problem
from greenroom.actors.request_id import REQUEST_ID, REQUEST_ID_HEADER, request_id
from greenroom.actors.websocket import SocketDoor
from greenroom.runtime.errors import SettingsError

SOCKETS = web.AppKey("sockets", SocketDoor)

log = logging.getLogger("greenroom.http")


class Lobby:
    """The small answers: health, models, status."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def health(self, _request: web.Request) -> web.Response:
        """The process answers."""
        return json_answer({"status": "ok"})

    async def ready(self, _request: web.Request) -> web.Response:
        """200 once turns are taken, 503 before and while draining."""
        if self._house.ready():
            return json_answer({"status": "ready", "model": self._house.model.name})
        return json_answer({"status": "not ready"}, status=503, headers={"Retry-After": "1"})

    async def models(self, _request: web.Request) -> web.Response:
        """The one served model, as a list."""
        return json_answer({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        """The served model under any of its names. Raises ``NotFound``."""
        self._house.resolve_model(request.match_info["id"])
        return json_answer(self._model())

    async def status(self, _request: web.Request) -> web.Response:
        """Every actor, and what the stage has done; for operators."""
        return json_answer(await self._house.status())

    def _model(self) -> dict[str, object]:
        card = self._house.model
        return {
            "id": card.name,
            "object": "model",
            "created": card.created,
            "owned_by": "greenroom",
            "greenroom": {"hf_id": card.hf_id, "context_window": card.context_window},
        }


def build_app(house: House, *, host: str | None = None) -> web.Application:
    """The application in front of ``house``. ``host`` is the address bound to, if not the setting.

    Raises ``SettingsError`` for an address beyond loopback without a key.
    """
    server = house.settings.server
    guard = Guard(
        host=host if host is not None else server.host,
        api_keys=server.all_keys,
        admin_key=server.admin_key,
        allowed_origins=server.allowed_origins,
    )
    metrics, cors = MetricsDoor(house), Cors(server.allowed_origins)
    app = web.Application(
        middlewares=[metrics.counting, _edge, cors.preflight, guarding(guard)],
        client_max_size=server.max_body_mb << 20,
    )
    lobby, chat, sockets = Lobby(house), ChatDoor(house), SocketDoor(house)
    agents, portage = AgentsDoor(house), PortageDoor(house)
    app.add_routes(
        [
            web.get("/health", lobby.health),
            web.get("/health/ready", lobby.ready),
            web.get("/metrics", metrics.get),
            web.get("/v1/models", lobby.models),
            web.get("/v1/models/{id:.+}", lobby.model),
            web.post("/v1/chat/completions", chat.post),
            web.post("/v1/completions", LegacyDoor(house).post),
            web.post("/v1/agents", agents.spawn),
            web.get("/v1/agents", agents.list),
            web.post("/v1/agents/import", portage.import_own),
            web.get("/v1/agents/{name}", agents.find),
            web.delete("/v1/agents/{name}", agents.delete),
            web.post("/v1/agents/{name}/say", agents.say),
            web.post("/v1/agents/{name}/hear", agents.hear),
            web.get("/v1/agents/{name}/heard", agents.heard),
            web.post("/v1/agents/{name}/fork", agents.fork),
            web.post("/v1/agents/{name}/rollback", agents.rollback),
            web.get("/v1/agents/{name}/log", agents.log),
            web.post("/v1/agents/{name}/pin", agents.pin),
            web.post("/v1/agents/{name}/unpin", agents.unpin),
            web.post("/v1/agents/{name}/probe", agents.probe),
            web.get("/v1/agents/{name}/export", portage.export),
            web.post("/v1/agents/{name}/import", portage.import_named),
            web.get("/admin/status", lobby.status),
            web.get("/v1/agents/{name}/stream", sockets.one),
            web.get("/v1/stream", sockets.many),
            web.get("/v1/stream/schema", sockets.schema),
        ]
    )
    app.on_response_prepare.append(_stamp)
    app.on_response_prepare.append(cors.stamp)
    app[SOCKETS] = sockets
    return app


@asynccontextmanager
async def serve_http(house: House, host: str, port: int) -> AsyncIterator[str]:
    """Listen while the block runs; gives the URL, with the real port when ``port`` is 0.

    On leaving, no new connection is taken, running requests have ``server.drain_s`` seconds to
    end, and what is left is cancelled. Raises ``SettingsError`` when the address cannot be bound.
    """
    app = build_app(house, host=host)
    drain_s = house.settings.server.drain_s
    runner = web.AppRunner(
        app,
        # A client that leaves cancels its handler, and so its turn, wherever that is.
        handler_cancellation=True,
        shutdown_timeout=drain_s,
        access_log=None,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SettingsError(_cannot_bind(error, host, port)) from error
        bound = runner.addresses[0][1]
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}"
    finally:
        for site in list(runner.sites):
            await site.stop()
        # Before cleanup, from which on aiohttp reads no more frames, a close frame neither.
        await app[SOCKETS].drain(drain_s)
        await runner.cleanup()


def _cannot_bind(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is in use: stop what listens there, or choose another"
            " (server.port, --port, GREENROOM_SERVER_PORT)."
        )
    return f"Cannot listen on {host}:{port}: {error.strerror or error}."


@web.middleware
async def _edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, turn errors into answers, and log one line without any content."""
    request[REQUEST_ID] = request_id(request.headers.get(REQUEST_ID_HEADER))
    begun = time.monotonic()
    status: int | str = "left"
    try:
        response = await handler(request)
        status = response.status
    except ConnectionResetError:
        raise
    except Exception as error:  # the HTTP edge: the one place where any error becomes an answer
        response = problem(error, request[REQUEST_ID]).response()
        status = response.status
    finally:
        taken_ms = (time.monotonic() - begun) * 1000
        log.info(
            "%s %s %s %.1f ms %s",
            request.method,
            request.rel_url.raw_path,
            status,
            taken_ms,
            request[REQUEST_ID],
        )
    return response


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
