"""Props: how to make an actor, and under which terms it lives (Akka's word)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.supervise import Supervision

if TYPE_CHECKING:
    from greenroom.runtime.actor import Actor

# How long a graceful stop may take, in seconds, where nobody says otherwise.
STOP_DEADLINE_S = 30.0

DEFAULT_SUPERVISION = Supervision()
DEFAULT_MAILBOX = MailboxSpec()


class Props(Struct, frozen=True, eq=False):
    """``factory`` makes a fresh instance for every generation.

    ``passivate_after_s``: idle seconds after which the instance leaves memory until the next
    message. ``time_to_live_s``: seconds after which it is stopped gracefully, and killed if that
    takes more than STOP_DEADLINE_S. ``identity``: what must be equal for ``spawn_or_get`` to mean
    the same actor (compared with ``==``).
    """

    factory: Callable[[], Actor[Any]]
    supervision: Supervision = DEFAULT_SUPERVISION
    mailbox: MailboxSpec = DEFAULT_MAILBOX
    passivate_after_s: float | None = None
    time_to_live_s: float | None = None
    identity: object = None

    @classmethod
    def of(
        cls,
        factory: Callable[[], Actor[Any]],
        supervision: Supervision | None,
        mailbox: MailboxSpec | None,
        passivate_after_s: float | None,
        time_to_live_s: float | None,
        identity: object,
    ) -> Props:
        """From the arguments of ``spawn``, None meaning the default."""
        return cls(
            factory,
            supervision or DEFAULT_SUPERVISION,
            mailbox or DEFAULT_MAILBOX,
            passivate_after_s,
            time_to_live_s,
            identity,
        )
