"""How the actors are supervised, and asked, that nothing works without."""

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.supervise import Decision, Supervision, default_decider

# Whom everybody asks: a thousand agents at once wait in line there. What may pile up is bounded by
# the agents' own mailboxes, and by the doors.
PATIENT = MailboxSpec(when_full="wait")


def vital() -> Supervision:
    """When restarts do not help, the system has failed."""
    return Supervision(decider=vital_decider, exhausted=Decision.ESCALATE)


def vital_decider(error: BaseException) -> Decision:
    """As by default, except that loading again what does not load would fail again."""
    return Decision.ESCALATE if isinstance(error, ModelUnavailable) else default_decider(error)
