"""Every error that greenroom raises on purpose.

One root; the facts are attributes, so that no caller parses a message. The HTTP status that an
error becomes is decided by one table at the edge, not here.
"""

from pathlib import Path


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


class TooLargeForMemory(InvalidRequest):
    """A prompt's floats do not fit into memory even with nothing else there: shorten it.

    Or raise ``stage.memory_budget_mb``, if the machine has more. In bytes: ``needed`` and
    ``limit``.
    """

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(
            f"this prompt needs {_mb(needed)} on the stage, and the limit is {_mb(limit)}: "
            "shorten the messages",
            param="messages",
            code="context_exceeds_memory",
        )
        self.needed = needed
        self.limit = limit


class NoMemory(Unavailable):
    """Others' prompts and answers left no room for this one within the time that it may wait.

    In bytes: ``needed``, what was ``free`` (negative: over the limit) and the ``limit``.
    """

    def __init__(self, needed: int, free: int, limit: int, *, retry_after_s: float) -> None:
        super().__init__(
            f"this prompt needs {_mb(needed)} on the stage, and {_mb(max(0, free))} of "
            f"{_mb(limit)} are free; try again later",
            retry_after_s=retry_after_s,
        )
        self.needed = needed
        self.free = free
        self.limit = limit


class MailboxFull(Unavailable):
    """An actor's mailbox has no room and its policy is to reject: the caller should slow down.

    ``actor`` is the actor's path, ``capacity`` its mailbox's size in messages.
    """

    def __init__(self, actor: str, capacity: int) -> None:
        super().__init__(f"{actor} has {capacity} messages waiting; try again later.")
        self.actor = actor
        self.capacity = capacity


class ActorStopped(Unavailable):
    """The actor is gone, or stopped before it came to this message, which had no effect."""

    def __init__(self, actor: str, detail: str = "has stopped") -> None:
        super().__init__(f"{actor} {detail}.")
        self.actor = actor


class ActorFailed(Unavailable):
    """The actor crashed while it handled this message: nobody's fault that the caller can mend.

    The cause is ``__cause__``. The message may have had effects; it is not replayed.
    """

    def __init__(self, actor: str, error: str) -> None:
        super().__init__(f"{actor} failed ({error}); a retry may succeed.")
        self.actor = actor
        self.error = error


class AskTimeout(Unavailable):
    """No answer came within ``timeout_s`` seconds; the work asked for has been cancelled."""

    def __init__(self, actor: str, timeout_s: float) -> None:
        super().__init__(f"{actor} did not answer within {timeout_s:g} s.")
        self.actor = actor
        self.timeout_s = timeout_s


class NameTaken(Conflict):
    """An actor of that name lives already, or lives with another identity."""

    def __init__(self, actor: str, detail: str = "exists already") -> None:
        super().__init__(f"{actor} {detail}.", param="name", code="name_taken")
        self.actor = actor


class ChannelClosed(GreenroomError):
    """The producer sends on a reply channel that is closed: a defect of the producer."""


class ChannelCancelled(ChannelClosed):
    """The reader of a reply channel has left: the producer should stop its work."""


class ChannelFull(GreenroomError):
    """The reader of a reply channel is slower than its producer, which did not want to wait."""


class StorageFailed(Unavailable):
    """The disk refused a read or a write (full, read-only, broken): the operator's to mend.

    The turn it happened to is not remembered; what was durable before still is.
    """


class StageFailed(Unavailable):
    """The GPU actor failed while this turn was on stage: it restarts, and a retry may succeed."""


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MB"


class StoreBusy(GreenroomError):
    """Another process has this store open; ``path`` is the store's folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the store in {path} is in use by another greenroom process; "
            "stop that one, or set another home"
        )
        self.path = path


class StoreUnusable(GreenroomError):
    """The store's folder ``path`` or its index cannot be used: damaged, or no rights."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(
            f"the store in {path} cannot be used ({reason}); mend or move it away, "
            "or set another home"
        )
        self.path = path


class StoreTooNew(GreenroomError):
    """The index was written by a later greenroom; ``found`` is its schema version."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(
            f"the store in {path} has schema {found}, this greenroom knows {known}; "
            "install a newer greenroom, or set another home"
        )
        self.path = path
        self.found = found
