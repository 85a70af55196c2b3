"""Exit statuses: what a script can tell from how a command ended."""

from enum import IntEnum

from greenroom.actors.guard import Forbidden, Unauthorized
from greenroom.runtime.errors import (
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    SettingsError,
    StoreBusy,
    StoreTooNew,
    StoreUnusable,
    Unavailable,
)


class Status(IntEnum):
    """How a command ended.

    ``FAILED``: it tried and something broke, or what it looked at is not well. ``MISTAKEN``: the
    caller must change something first (the command line, a setting, the store's rights).
    ``NOT_FOUND``: what was named does not exist. ``BUSY``: not now; the same command may succeed
    later, or once another process lets go. ``INTERRUPTED``: Ctrl-C, as shells count it.
    """

    DONE = 0
    FAILED = 1
    MISTAKEN = 2
    NOT_FOUND = 3
    BUSY = 4
    INTERRUPTED = 130


# The most specific class counts; what is not here is a failure.
_TABLE: dict[type[BaseException], Status] = {
    Unauthorized: Status.MISTAKEN,
    Forbidden: Status.MISTAKEN,
    InvalidRequest: Status.MISTAKEN,
    SettingsError: Status.MISTAKEN,
    ModelUnavailable: Status.MISTAKEN,
    StoreUnusable: Status.MISTAKEN,
    StoreTooNew: Status.MISTAKEN,
    NotFound: Status.NOT_FOUND,
    Unavailable: Status.BUSY,
    StoreBusy: Status.BUSY,
}


def status_of(error: BaseException) -> Status:
    """The exit status for a command that ended with ``error``."""
    return next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), Status.FAILED)
