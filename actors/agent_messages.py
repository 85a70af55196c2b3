"""What is said to an agent, and which agent is meant."""

import msgspec

from greenroom.runtime.agent_records import AgentInfo, Forgotten, Heard, SpawnRequest
from greenroom.runtime.channel import Channel
from greenroom.runtime.frame import Frame
from greenroom.runtime.message import Message, Request
from greenroom.runtime.records import ChatMessage, TurnEvent, TurnRequest
from greenroom.runtime.segments import Segment


class AgentKey(msgspec.Struct, frozen=True):
    """Which agent: a name within the namespace of whoever owns it."""

    namespace: str
    name: str


class Turn(Message, frozen=True):
    """Take a turn; its events go to ``reply``. ``arrived`` is on the process's monotonic clock."""

    request: TurnRequest
    reply: Channel[TurnEvent]
    arrived: float


class Hear(Message, frozen=True):
    """Hear something, in the background. Later turns know it, or will have heard it by then."""

    message: ChatMessage


class Overhear(Request[None], frozen=True):
    """Get ready to hear a message that is still being said, of which this is known; with None
    nothing is being said any more. Answered once the stage has been told."""

    message: ChatMessage | None


class Attend(Message, frozen=True):
    """Tell ``reply`` once all that was told before is durable, or at once if not ``settled``."""

    reply: Channel[Heard]
    settled: bool


class Fork(Request[AgentInfo], frozen=True):
    """Give the memory to a new agent, up to a segment if one is named; see ``House.fork``."""

    name: str
    at: str | None


class Rollback(Request[AgentInfo], frozen=True):
    """Stand where the agent stood at a segment of its chain; see ``House.rollback``."""

    to: str


class Arrive(Request[AgentInfo], frozen=True):
    """Come into being with a memory from elsewhere; see ``Adopt``, to which these belong.

    Raises Conflict where there is such an agent, if only since what it has heard is in the index.
    """

    wanted: SpawnRequest
    salt: str | None
    segments: tuple[Segment, ...]
    frame: Frame


class Vanish(Request[Forgotten], frozen=True):
    """Be forgotten; if only when ``overdue``, not after a turn in the meantime."""

    overdue: bool = False


AgentMessage = Turn | Hear | Overhear | Attend | Fork | Rollback | Arrive | Vanish
