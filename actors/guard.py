"""Who may come in: bearer keys, and checks that a web page is not behind the request.

A server on loopback is reachable from every page that a browser on this machine opens. ``Origin``
stops cross-site requests and sockets; ``Host`` stops a foreign name that was rebound to loopback.
"""

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from greenroom.runtime.errors import GreenroomError, NotFound, SettingsError
from greenroom.runtime.namespace import derive_namespace

NAMESPACE = web.RequestKey("namespace", str)
"""The caller's namespace: "" when no key is configured, else derived from the caller's key."""

_OPEN_PATHS = frozenset({"/health", "/health/ready"})
ADMIN_PATH = "/admin/"


class Unauthorized(GreenroomError):
    """A key is required, and the request carries none or a wrong one: the caller's fault."""


class Forbidden(GreenroomError):
    """The request's ``Origin`` or ``Host`` is not one that is served: the caller's fault."""


class Guard:
    """Admits or refuses a request by its headers alone, before its body is read.

    ``host`` is the address bound to; each of ``api_keys`` opens a namespace of its own. Raises
    ``SettingsError`` when the address is not loopback and there is no key: such a server would be
    open to the whole network.
    """

    def __init__(
        self,
        *,
        host: str,
        api_keys: Collection[str],
        admin_key: str,
        allowed_origins: tuple[str, ...],
    ) -> None:
        self._loopback = is_loopback(host)
        self._namespaces = {key.encode(): derive_namespace(key) for key in api_keys}
        self._admin = {admin_key.encode(): ""} if admin_key else {}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)
        if not self._loopback and not self._namespaces:
            raise SettingsError(
                f"Listening on {host} would let the whole network in: set server.api_key"
                " (GREENROOM_SERVER_API_KEY), or listen on 127.0.0.1."
            )

    def admit(self, request: web.Request) -> str:
        """The caller's namespace.

        Raises ``Forbidden`` or ``Unauthorized``, and ``NotFound`` for an administrative path when
        no key for it is set.
        """
        self._check_host(request.headers.get(hdrs.HOST))
        self._check_origin(request.headers.get(hdrs.ORIGIN), request.headers.get(hdrs.HOST))
        if request.path.startswith(ADMIN_PATH):
            if not self._admin:
                raise NotFound("The administrative routes are off: set server.admin_key.")
            return _opened(request, self._admin)
        if request.path in _OPEN_PATHS or not self._namespaces:
            return ""
        return _opened(request, self._namespaces)

    def _check_host(self, host: str | None) -> None:
        # With a key, or bound to the network, the names it is reached by are not ours to know; a
        # rebound page has no key. No Host at all is HTTP/1.0: no browser.
        if not self._loopback or self._namespaces or host is None:
            return
        if not is_loopback(_hostname(host)):
            raise Forbidden(f"The Host {host!r} is not this machine's loopback address.")

    def _check_origin(self, origin: str | None, host: str | None) -> None:
        if origin is None:
            return
        origin = origin.lower()
        if origin in self._origins:
            return
        name = _hostname(origin.partition("://")[2])
        same = host is not None and origin.partition("://")[2] == host.lower()
        if not same and not (self._loopback and is_loopback(name)):
            raise Forbidden(
                f"The Origin {origin!r} is not allowed: add it to server.allowed_origins if it is"
                " yours."
            )


def _opened(request: web.Request, namespaces: Mapping[bytes, str]) -> str:
    """The namespace that the request's key opens, in a time that tells nothing of the keys."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else ""
    given = given or request.headers.get("x-api-key", "")
    token_bytes = given.encode("utf-8", "surrogateescape")
    fitting = [
        namespace for key, namespace in namespaces.items() if hmac.compare_digest(token_bytes, key)
    ]
    if not fitting:
        what = "The API key is wrong." if given else "An API key is required."
        raise Unauthorized(f"{what} Send it as 'Authorization: Bearer <key>'.")
    return fitting[0]


def guarding(guard: Guard) -> Middleware:
    """The middleware that asks ``guard`` first and notes the caller's namespace."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[NAMESPACE] = guard.admit(request)
        return await handler(request)

    return middleware


def is_loopback(host: str) -> bool:
    """Whether the name or address can only mean this machine."""
    host = host.lower().strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(authority: str) -> str:
    """The host of ``host[:port]``, "" when it is malformed."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""
