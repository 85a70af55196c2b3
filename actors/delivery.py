"""A message to an agent, who is woken for it."""

import contextlib

from greenroom.actors.agent_messages import AgentKey, AgentMessage
from greenroom.actors.director_messages import DirectorMessage, Wake
from greenroom.runtime.errors import ActorStopped
from greenroom.runtime.ref import Ref


async def deliver(
    director: Ref[DirectorMessage], key: AgentKey, message: AgentMessage, *, enrol: bool
) -> None:
    """Tell the agent of that key something.

    One that was stopped after it was woken, because it was forgotten, say, has not had the message
    and is woken anew. Raises what waking raises, and MailboxFull.
    """
    while True:
        agent = await director.ask(Wake(key, enrol=enrol))
        with contextlib.suppress(ActorStopped):
            agent.tell(message)
            return
