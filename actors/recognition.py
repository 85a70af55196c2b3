"""Recognising who a turn is for, where the request does not name its agent."""

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.company import Company
from greenroom.actors.store_messages import Branch, Dates, Enrol, FindAgent, Heir, Recall, Whose
from greenroom.actors.turn import past
from greenroom.runtime.agent_records import SpawnRequest
from greenroom.runtime.errors import Conflict, NotFound
from greenroom.runtime.frame import Frame
from greenroom.runtime.records import ChatMessage, SessionHint, TurnRequest

MOST_KEYS = 4096
"""Cache keys that are remembered, the latest used: hints are not worth a place on disk."""
MOST_DATES = 8
"""Days that are looked through for whom a history without a name belongs to, the newest first."""
AFTERLIFE_S = 3600.0
"""Seconds for which an agent is kept unused after what its client called the last request."""


class Recognition:
    """The first that applies: a name, a client's session, the answer that a turn follows, a cache
    key, a remembered history."""

    def __init__(self, company: Company) -> None:
        self._company = company
        self._keys: OrderedDict[tuple[str, str], AgentKey] = OrderedDict()

    async def known(self, request: TurnRequest) -> AgentKey | None:
        """The agent that a turn is for, None where it would be a new one. Changes nothing."""
        hint = request.session or SessionHint()
        if request.agent is not None:
            return AgentKey(request.namespace, request.agent)
        if hint.name is not None:
            return AgentKey(request.namespace, hint.name)
        if request.follows is not None:
            return await self._company.store.ask(Heir(request.namespace, request.follows))
        if hint.cache_key is not None:
            keyed = self._keys.get((request.namespace, hint.cache_key))
            if keyed is not None and await self._begins_alike(keyed, request):
                return keyed
        return await self._remembering(request)

    async def settled(self, request: TurnRequest) -> AgentKey:
        """The agent that takes the turn; who is not known by now is a new one.

        A client's session that continues the memory of its parent begins as a fork of it.
        """
        key = await self.known(request)
        if key is None:
            key = AgentKey(request.namespace, f"anon-{secrets.token_hex(6)}")
        hint = request.session
        if hint is None or request.agent is not None:
            return key
        if hint.cache_key is not None:
            self._note(request.namespace, hint.cache_key, key)
        if (origin := await self.origin(request, key)) != key:
            await self._branch(origin, key)
        if hint.final:
            last = SpawnRequest(namespace=key.namespace, name=key.name, ttl_s=AFTERLIFE_S)
            await self._company.store.ask(Enrol(last))
        return key

    async def origin(self, request: TurnRequest, key: AgentKey) -> AgentKey:
        """With whose memory the agent of a turn begins: its own, or its parent's that it
        continues."""
        hint = request.session or SessionHint()
        if request.agent is not None or hint.parent is None:
            return key
        parent = AgentKey(request.namespace, hint.parent)
        if await self._company.store.ask(FindAgent(key)) is not None:
            return key
        return parent if await self._remembering(request) == parent else key

    async def _remembering(self, request: TurnRequest) -> AgentKey | None:
        if request.prompt is not None:
            return None
        text, store = self._company.facts.text, self._company.store
        dates: tuple[str, ...] = ("",)
        if text.template.is_dated:  # what is remembered was rendered on its own day
            dates = (await store.ask(Dates(request.namespace)))[:MOST_DATES]
        for date in dates:
            frame = Frame(request.tools, request.template_kwargs, date)
            rendered = await asyncio.to_thread(text.render, request.messages, frame)
            if (known := await store.ask(Whose(request.namespace, rendered))) is not None:
                return known
        return None

    async def _begins_alike(self, key: AgentKey, request: TurnRequest) -> bool:
        known = await self._company.store.ask(FindAgent(key))
        if known is None:
            return False
        chain = await self._company.store.ask(Recall(known.info.head))
        opening = _opening(past(chain, None))
        return opening is not None and opening == _opening(request.messages)

    async def _branch(self, parent: AgentKey, key: AgentKey) -> None:
        known = await self._company.store.ask(FindAgent(parent))
        if known is not None:
            # Meanwhile made by another request of its own, or the parent was forgotten.
            with contextlib.suppress(Conflict, NotFound):
                await self._company.store.ask(Branch(parent, key.name, known.info.head))

    def _note(self, namespace: str, cache_key: str, key: AgentKey) -> None:
        self._keys[namespace, cache_key] = key
        self._keys.move_to_end((namespace, cache_key))
        if len(self._keys) > MOST_KEYS:
            self._keys.popitem(last=False)


def _opening(messages: Sequence[ChatMessage]) -> str | None:
    """What was said first, after a system prompt that may change with every request."""
    return next((m.content for m in messages if m.role == "user"), None)
