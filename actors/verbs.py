"""What can be done with an agent's memory, besides letting it speak and hear."""

from collections.abc import AsyncIterable, AsyncIterator

import msgspec

from greenroom.actors.agent_messages import AgentKey, AgentMessage, Fork, Rollback, Vanish
from greenroom.actors.company import Company
from greenroom.actors.director_messages import DirectorMessage, Wake
from greenroom.actors.drafting import Drafting
from greenroom.actors.memory import Memory, outline
from greenroom.actors.portage import exported, imported
from greenroom.actors.recognition import Recognition
from greenroom.actors.roster import unknown
from greenroom.actors.store_messages import Enrol, FindAgent, Known, Pin, Pinned, Recall
from greenroom.actors.turn import answered, clip_max_tokens, find_segment, log_entries
from greenroom.runtime.agent_records import AgentInfo, Forgotten, LogEntry, Probe, SpawnRequest
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.names import validate_name
from greenroom.runtime.records import TurnRequest
from greenroom.runtime.ref import Ref
from greenroom.runtime.segments import Piece, chain_length


class Verbs:
    """The part of the ``House`` that is about memories.

    What moves an agent goes through its mailbox, and so comes after the turns that came before.
    """

    def __init__(self, company: Company, director: Ref[DirectorMessage]) -> None:
        self._company = company
        self._director = director
        self._recognition = Recognition(company)

    def resolve_model(self, name: str | None) -> str:
        """The served model's catalog name; see ``House``."""
        raise NotImplementedError

    async def spawn(self, request: SpawnRequest) -> AgentInfo:
        """Find an agent or make it; see ``House``."""
        name = validate_name(request.name)
        if request.ttl_s is not None and request.ttl_s <= 0:
            raise InvalidRequest("ttl_s must be above 0.", param="ttl_s", code="out_of_range")
        if request.model is not None:
            self.resolve_model(request.model)
        system = request.system and self._company.volatile.clean(request.system)
        wanted = msgspec.structs.replace(request, name=name, system=system)
        return await self._company.store.ask(Enrol(wanted))

    async def find(self, namespace: str, name: str) -> AgentInfo:
        """What is known of an agent; see ``House``."""
        return (await self._known(AgentKey(namespace, name))).info

    async def fork(self, namespace: str, agent: str, name: str, at: str | None = None) -> AgentInfo:
        """A new agent with the memory of another; see ``House``."""
        ref = await self._existing(AgentKey(namespace, agent))
        return await ref.ask(Fork(validate_name(name), at))

    async def rollback(self, namespace: str, agent: str, to: str) -> AgentInfo:
        """Take an agent back; see ``House``."""
        return await (await self._existing(AgentKey(namespace, agent))).ask(Rollback(to))

    async def log(self, namespace: str, agent: str) -> tuple[LogEntry, ...]:
        """An agent's chain, oldest first; see ``House``."""
        key = AgentKey(namespace, agent)
        chain = await self._chain(key)
        links = await outline(self._company, chain)
        pinned = await self._company.store.ask(Pinned(key))
        return log_entries(chain, links, self._company.facts.spec, pinned)

    async def pin(self, namespace: str, agent: str, segment: str | None = None) -> str:
        """Keep a segment and what it stands on from eviction; see ``House``."""
        return await self._set_pin(AgentKey(namespace, agent), segment, pinned=True)

    async def unpin(self, namespace: str, agent: str, segment: str | None = None) -> str:
        """Let go of a pin; see ``House``."""
        return await self._set_pin(AgentKey(namespace, agent), segment, pinned=False)

    async def probe(self, request: TurnRequest) -> Probe:
        """What a turn would find; see ``House``."""
        facts = self._company.facts
        request = self._steady(request)
        facts.text.check_size(request.messages, facts.context_window)
        key = await self._recognition.known(request)
        begins = key or AgentKey(request.namespace, "")
        begins = await self._recognition.origin(request, begins)
        memory = Memory(begins, self._company)
        await memory.load()
        chain = await memory.chain(request.follows)
        name = key.name if key else None
        if answered(request, chain) is not None:
            return Probe(name, chain_length(chain), chain_length(chain))
        drafting = Drafting(begins, self._company, memory)
        draft, _ = await drafting.prompt(request, chain, ahead=True)
        clip_max_tokens(request, draft.prompt, facts.context_window)
        return Probe(name, len(draft.prompt.tokens), await memory.foresee(draft))

    async def forget(self, namespace: str, agent: str) -> Forgotten:
        """Erase an agent, once the turns that came before are over; see ``House``."""
        return await (await self._existing(AgentKey(namespace, agent))).ask(Vanish())

    async def export(self, namespace: str, agent: str) -> AsyncIterator[bytes]:
        """An agent and its memory as one file; see ``House``."""
        known = await self._known(AgentKey(namespace, agent))
        async for piece in exported(self._company, self.resolve_model(None), known):
            yield piece

    async def import_agent(
        self, namespace: str, name: str | None, chunks: AsyncIterable[bytes]
    ) -> AgentInfo:
        """Take in an agent that was exported; see ``House``."""
        return await imported(self._company, self._director, namespace, name, chunks)

    def _steady(self, request: TurnRequest) -> TurnRequest:
        """The request without what changes every time and means nothing."""
        messages = self._company.volatile.left_out(request.messages)
        if not messages and request.messages:
            raise InvalidRequest("nothing is said", param="messages", code="empty_array")
        return msgspec.structs.replace(request, messages=messages)

    async def _set_pin(self, key: AgentKey, segment: str | None, *, pinned: bool) -> str:
        chain = await self._chain(key)
        if segment is not None:
            found = find_segment(chain, segment, "segment")
        elif chain:
            found = chain[-1].segment.id
        else:
            raise InvalidRequest(
                f"agent {key.name!r} remembers nothing yet", param="segment", code="no_memory"
            )
        await self._company.store.ask(Pin(key, found, pinned))
        return found

    async def _chain(self, key: AgentKey) -> tuple[Piece, ...]:
        return await self._company.store.ask(Recall((await self._known(key)).info.head))

    async def _known(self, key: AgentKey) -> Known:
        known = await self._company.store.ask(FindAgent(key))
        if known is None:
            raise unknown(key.name)
        return known

    async def _existing(self, key: AgentKey) -> Ref[AgentMessage]:
        await self._known(key)
        return await self._director.ask(Wake(key, enrol=False))
