"""What an error becomes for a caller: the one table from exception class to status."""

import logging
import math
from collections.abc import Mapping

import msgspec
from aiohttp import web

from greenroom.actors.guard import Forbidden, Unauthorized
from greenroom.actors.limits import TooSlow
from greenroom.runtime.errors import (
    Conflict,
    InvalidRequest,
    MailboxFull,
    ModelUnavailable,
    NoMemory,
    NotFound,
    Unavailable,
)

log = logging.getLogger("greenroom.http")

# The most specific class counts; what is not here is our fault and becomes a 500.
_TABLE: Mapping[type[BaseException], tuple[int, str]] = {
    InvalidRequest: (400, "invalid_request_error"),
    web.RequestPayloadError: (400, "invalid_request_error"),
    Unauthorized: (401, "authentication_error"),
    Forbidden: (403, "permission_error"),
    NotFound: (404, "invalid_request_error"),
    TooSlow: (408, "invalid_request_error"),
    Conflict: (409, "invalid_request_error"),
    MailboxFull: (429, "rate_limit_error"),
    Unavailable: (503, "service_unavailable_error"),
    ModelUnavailable: (503, "service_unavailable_error"),
}
MOST_WORDS = 500
"""Characters of a message or a field's name."""
_HTTP_CODES = {404: "unknown_path", 405: "method_not_allowed", 413: "body_too_large"}


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


def _short(text: str) -> str:
    """What was sent is not sent back at any length."""
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}…"


class Problem(msgspec.Struct, frozen=True):
    """An error as it is told: a status, headers and a body.

    ``retry_after_s`` is given where trying again may help, in whole seconds, as ``Retry-After`` is.
    """

    status: int
    error: ErrorBody
    headers: Mapping[str, str] = {}
    retry_after_s: int | None = None

    def json(self) -> bytes:
        """The body ``{"error": {…}}``."""
        return msgspec.json.encode({"error": self.error})

    def response(self) -> web.Response:
        """The problem as a whole HTTP response."""
        after_s = self.retry_after_s
        waiting = {} if after_s is None else {"Retry-After": str(after_s)}
        return web.Response(
            status=self.status,
            body=self.json(),
            headers={**self.headers, **waiting},
            content_type="application/json",
        )


def problem(error: Exception, request_id: str) -> Problem:
    """How ``error`` is told; one that is not in the table is logged and told without its text."""
    if isinstance(error, web.HTTPException):
        return _http_problem(error)
    for kind in type(error).__mro__:
        if kind in _TABLE:
            status, name = _TABLE[kind]
            return Problem(status, _body(error, name), _headers(error), _retry_after_s(error))
    log.error("request %s failed", request_id, exc_info=error)
    body = ErrorBody(
        f"Something went wrong here; request id {request_id}.", "server_error", code="internal"
    )
    return Problem(500, body)


def _body(error: Exception, name: str) -> ErrorBody:
    if isinstance(error, InvalidRequest):
        param = None if error.param is None else _short(error.param)
        return ErrorBody(_short(str(error)), name, param, error.code)
    return ErrorBody(_short(str(error)), name, code=_code(error))


def _code(error: Exception) -> str | None:
    match error:
        case Unauthorized():
            return "invalid_api_key"
        case Forbidden():
            return "forbidden"
        case MailboxFull():
            return "mailbox_full"
        case NoMemory():
            return "insufficient_memory"
        case ModelUnavailable():
            return "model_unavailable"
        case TooSlow():
            return "body_too_slow"
        case web.RequestPayloadError():
            return "invalid_body"
        case _:
            return "unavailable"


def _headers(error: Exception) -> dict[str, str]:
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


def _retry_after_s(error: Exception) -> int | None:
    return max(1, math.ceil(error.retry_after_s)) if isinstance(error, Unavailable) else None


def _http_problem(error: web.HTTPException) -> Problem:
    """What aiohttp itself refuses: an unknown path, a wrong method, a body too large."""
    status = error.status
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    body = ErrorBody(
        error.text or error.reason,
        "invalid_request_error" if status < 500 else "server_error",
        code=_HTTP_CODES.get(status, "http_error"),
    )
    return Problem(status, body, headers)
