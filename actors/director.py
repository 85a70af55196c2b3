"""The director: finds or makes agents, and supervises them."""

from functools import partial

from greenroom.actors.agent import AgentActor, Company
from greenroom.actors.messages import AgentKey, AgentMessage, DirectorMessage, Enrol
from greenroom.runtime.actor import Actor
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.ref import Ref


class Director(Actor[DirectorMessage]):
    """Every agent is its child: one that crashes is started again from its last committed head."""

    children_stop = "together"

    def __init__(self, company: Company, mailbox: MailboxSpec, passivate_after_s: float) -> None:
        self._company = company
        self._mailbox = mailbox
        self._passivate_after_s = passivate_after_s

    async def handle(self, message: DirectorMessage) -> Ref[AgentMessage]:
        """Enrol the agent in the index if it is new, and return where to reach it."""
        key = message.key
        await self._company.store.ask(Enrol(key, message.system))
        return self.context.spawn_or_get(
            child_name(key),
            partial(AgentActor, key, self._company),
            mailbox=self._mailbox,
            passivate_after_s=self._passivate_after_s,
        )


def child_name(key: AgentKey) -> str:
    """The agent's name among the director's children; a namespace is a hash, without ``:``."""
    return f"{key.namespace}:{key.name}" if key.namespace else key.name
