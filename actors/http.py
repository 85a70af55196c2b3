"""The HTTP server: the application, its edge where errors become answers, and the socket."""

import errno
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from greenroom.actors.cors import Cors
from greenroom.actors.guard import Guard, guarding
from greenroom.actors.house import House
from greenroom.actors.limits import Turnstile, taking_in
from greenroom.actors.metrics import MetricsDoor
from greenroom.actors.openapi import document
from greenroom.actors.problems import problem
from greenroom.actors.request_id import REQUEST_ID, REQUEST_ID_HEADER, request_id
from greenroom.actors.routes import routes_of
from greenroom.actors.scene_routes import scene_routes
from greenroom.actors.scene_socket import SceneSocketDoor
from greenroom.actors.websocket import SocketDoor
from greenroom.runtime.errors import SettingsError

SOCKETS = web.AppKey("sockets", SocketDoor)
SCENE_SOCKETS = web.AppKey("scene_sockets", SceneSocketDoor)

log = logging.getLogger("greenroom.http")


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
    turns = Turnstile(server.max_turns, "turns", house.meter.rejected)
    open_sockets = Turnstile(server.max_sockets, "sockets", house.meter.rejected)
    sockets = SocketDoor(house, open_sockets, turns)
    scene_sockets = SceneSocketDoor(house, open_sockets)
    routes = [*routes_of(house, metrics, sockets), *scene_routes(house, scene_sockets)]
    asking = frozenset(route.handler for route in routes if route.streams)
    app = web.Application(
        middlewares=[
            metrics.counting,
            _edge,
            cors.preflight,
            guarding(guard),
            taking_in(server.body_timeout_s, turns, asking),
        ],
        client_max_size=server.max_body_mb << 20,
    )
    described = document(routes)

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json")

    app.router.add_get("/openapi.json", openapi)
    for route in routes:
        if route.method == hdrs.METH_GET:
            app.router.add_get(route.path, route.handler)  # and HEAD
        else:
            app.router.add_route(route.method, route.path, route.handler)
    app.on_response_prepare.append(_stamp)
    app.on_response_prepare.append(cors.stamp)
    app[SOCKETS] = sockets
    app[SCENE_SOCKETS] = scene_sockets
    return app


@asynccontextmanager
async def serve_http(house: House, host: str, port: int) -> AsyncIterator[str]:
    """Listen while the block runs; gives the URL, with the real port when ``port`` is 0.

    On leaving, no new connection is taken, running requests have ``server.drain_s`` seconds to
    end, and what is left is cancelled. Raises ``SettingsError`` when the address cannot be bound.
    """
    app = build_app(house, host=host)
    server = house.settings.server
    drain_s = server.drain_s
    runner = web.AppRunner(
        app,
        # It counts from the connection on, and until a whole head is there.
        keepalive_timeout=server.head_timeout_s,
        # A client that leaves cancels its handler, and so its turn, wherever that is.
        handler_cancellation=True,
        shutdown_timeout=drain_s,
        access_log=None,
        logger=_protocol_log(),
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
        await app[SCENE_SOCKETS].drain()
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
    # What aiohttp refuses before all middlewares has no id yet.
    response.headers[REQUEST_ID_HEADER] = request.get(REQUEST_ID) or request_id(None)


def _protocol_log() -> logging.Logger:
    """Where aiohttp writes what is wrong with connections: not what was sent, as it would."""
    protocol = logging.getLogger("greenroom.http.protocol")
    protocol.addFilter(_without_content)  # once: it is known again
    return protocol


def _without_content(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    log.info("a malformed request was refused (%s)", type(error).__name__)
    return False
