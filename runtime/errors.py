"""Every error that greenroom raises on purpose.

One root; the facts are attributes, so that no caller parses a message. The HTTP status that an
error becomes is decided by one table at the edge, not here.
"""


class GreenroomError(Exception):
    """Root of all errors raised on purpose."""


class InvalidRequest(GreenroomError):
    """The caller sent something that cannot be served: the caller's fault, raised before any work.

    ``param`` names the offending field as the caller spelled it, ``code`` is a short stable word.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFound(InvalidRequest):
    """What the caller named does not exist (a model, an agent)."""


class Conflict(InvalidRequest):
    """The request contradicts what exists already (an agent with another system prompt)."""


class SettingsError(GreenroomError):
    """A setting is unknown, has the wrong type or a value out of range: the operator's fault."""


class ModelUnavailable(GreenroomError):
    """A model cannot be fetched, read or served here; the message says what to do."""


class Unavailable(GreenroomError):
    """The system cannot take this now and a retry may succeed.

    ``retry_after_s`` is a hint in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
