"""What is said to the director."""

from greenroom.actors.agent_messages import AgentKey, AgentMessage
from greenroom.runtime.message import Request
from greenroom.runtime.ref import Ref


class Wake(Request[Ref[AgentMessage]], frozen=True):
    """The agent of that key, made ready if need be, and enrolled unless its first turn is to do so
    (or somebody has done it)."""

    key: AgentKey
    enrol: bool = True


DirectorMessage = Wake
