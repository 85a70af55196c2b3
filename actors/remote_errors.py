"""What goes wrong far away, as the errors that it would be here."""

import msgspec

from greenroom.actors.guard import Forbidden, Unauthorized
from greenroom.actors.problems import ErrorBody
from greenroom.runtime.errors import (
    Conflict,
    GreenroomError,
    InvalidRequest,
    MailboxFull,
    NotFound,
    Unavailable,
)


class ServerLost(Unavailable):
    """The server cannot be reached, or has gone in the middle of a turn.

    Whether a turn that was under way is remembered is for the agent's log to say; with a ``key`` it
    can be said again without being said twice. The next call connects anew.
    """


class ServerFailed(Unavailable):
    """Something went wrong in the server, which has the details in its log."""


class RemoteMailboxFull(MailboxFull):
    """An agent far away has no room for more: ``capacity`` is not known here (0)."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        Unavailable.__init__(self, message, retry_after_s=retry_after_s)
        self.actor = ""
        self.capacity = 0


class _Told(msgspec.Struct):
    error: ErrorBody
    status: int = 0  # where an answer is not all error
    retry_after_s: int | None = None


def error_of(told: ErrorBody, *, status: int, wait_s: float) -> GreenroomError:
    """The error that a server tells, in an answer or in a frame."""
    match told.type, status:
        case "authentication_error", _:
            return Unauthorized(told.message)
        case "permission_error", _:
            return Forbidden(told.message)
        case "rate_limit_error", _:
            return RemoteMailboxFull(told.message, wait_s)
        case "service_unavailable_error", _:
            return Unavailable(told.message, retry_after_s=wait_s)
        case "invalid_request_error", 404:
            return NotFound(told.message, param=told.param, code=told.code)
        case "invalid_request_error", 409:
            return Conflict(told.message, param=told.param, code=told.code)
        case "invalid_request_error", _:
            return InvalidRequest(told.message, param=told.param, code=told.code)
        case _:
            return ServerFailed(told.message)


def error_in(body: bytes, status: int, retry_after: str | None) -> GreenroomError:
    """The error that an HTTP answer tells; one without our error object is not from a greenroom."""
    try:
        told = msgspec.json.decode(body, type=_Told).error
    except msgspec.DecodeError:
        return ServerFailed(f"the server answered {status}, and not as a greenroom does")
    wait_s = float(retry_after) if retry_after is not None and retry_after.isdigit() else 1.0
    return error_of(told, status=status, wait_s=wait_s)


def error_event(data: bytes) -> GreenroomError | None:
    """The error that an event of a stream tells, if it tells one."""
    try:
        told = msgspec.json.decode(data, type=_Told)
    except msgspec.DecodeError:
        return None
    return error_of(told.error, status=told.status, wait_s=told.retry_after_s or 1.0)
