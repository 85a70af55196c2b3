"""The director: finds or makes agents, and supervises them."""

import hashlib
from functools import partial

from greenroom.actors.agent import AgentActor
from greenroom.actors.agent_messages import AgentKey, AgentMessage
from greenroom.actors.company import Company
from greenroom.actors.director_messages import DirectorMessage
from greenroom.actors.store_messages import Enrol
from greenroom.runtime.actor import Actor
from greenroom.runtime.agent_records import SpawnRequest
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.names import MAX_NAME_LENGTH
from greenroom.runtime.ref import Ref


class Director(Actor[DirectorMessage]):
    """Every agent is its child: one that crashes is started again from its last committed head."""

    children_stop = "together"

    def __init__(self, company: Company, mailbox: MailboxSpec, passivate_after_s: float) -> None:
        self._company = company
        self._mailbox = mailbox
        self._passivate_after_s = passivate_after_s

    async def handle(self, message: DirectorMessage) -> Ref[AgentMessage]:
        """Enrol the agent in the index if it is new and to be, and return where to reach it."""
        key = message.key
        if message.enrol:
            wanted = SpawnRequest(namespace=key.namespace, name=key.name)
            await self._company.store.ask(Enrol(wanted))
        return self.context.spawn_or_get(
            child_name(key),
            partial(AgentActor, key, self._company),
            mailbox=self._mailbox,
            passivate_after_s=self._passivate_after_s,
            identity=key,
        )


def child_name(key: AgentKey) -> str:
    """The agent's name among the director's children; a namespace is a hash, without ``:``."""
    name = f"{key.namespace}:{key.name}" if key.namespace else key.name
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{name[: MAX_NAME_LENGTH - len(digest) - 1]}~{digest}"
