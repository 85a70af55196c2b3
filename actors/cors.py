"""Cross-origin requests: which pages of other origins may read what the server answers."""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from greenroom.actors.identity import AGENT_HEADER
from greenroom.actors.request_id import REQUEST_ID_HEADER

_METHODS = "GET, POST, DELETE, OPTIONS"
_ASKED = "authorization, content-type, x-api-key"
_EXPOSED = f"{AGENT_HEADER}, X-Agent-Head, X-Cached-Tokens, {REQUEST_ID_HEADER}, Retry-After"
_MAX_AGE_S = "600"


class Cors:
    """Answers the browser for pages of ``origins``, and for nobody where there are none."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    @web.middleware
    async def preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The middleware that answers preflights, which carry no key and have no effect."""
        asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        if request.method != hdrs.METH_OPTIONS or asked is None or not self._origin(request):
            return await handler(request)
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, _ASKED)
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: wanted,
                hdrs.ACCESS_CONTROL_MAX_AGE: _MAX_AGE_S,
            },
        )

    async def stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        """The signal that marks every answer, errors and streams too, as readable by the page."""
        if (origin := self._origin(request)) is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)

    def _origin(self, request: web.Request) -> str | None:
        """The page's origin if it is one of those, spelled as the browser did."""
        origin = request.headers.get(hdrs.ORIGIN)
        return origin if origin is not None and origin.lower() in self._origins else None
