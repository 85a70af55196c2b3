"""From a request to the prompt of a turn: the same for the turn itself and for a look ahead."""

import asyncio
from collections.abc import Sequence

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.company import Company
from greenroom.actors.memory import Memory
from greenroom.actors.shortening import Shortening
from greenroom.actors.turn import Draft, bare_prompt, whole_history
from greenroom.runtime.hearsay import rendered_prompt
from greenroom.runtime.records import ChatMessage, TurnRequest
from greenroom.runtime.segments import Piece


class Drafting:
    """How the prompts of one agent's turns come about."""

    def __init__(self, key: AgentKey, company: Company, memory: Memory) -> None:
        self._memory = memory
        self._shortening = Shortening(key, company, memory)

    async def prompt(
        self,
        request: TurnRequest,
        chain: Sequence[Piece],
        heard: Sequence[ChatMessage] = (),
        *,
        ahead: bool = False,
    ) -> tuple[Draft, tuple[str, ...]]:
        """The prompt of a turn that goes on from ``chain``, and what had to be done to it.

        ``ahead`` of a turn the model is not run: where it would have to summarize, there is a note
        in the summary's place. Raises InvalidRequest where the template refuses.
        """

        async def drafted(told: Sequence[ChatMessage]) -> Draft:
            return await self._drafted(request, told, chain)

        draft = await drafted(whole_history(request, chain, self._memory.system, heard))
        return await self._shortening.fit(request, draft, drafted, ahead=ahead)

    async def _drafted(
        self, request: TurnRequest, messages: Sequence[ChatMessage], chain: Sequence[Piece]
    ) -> Draft:
        """Where a history leaves the agent's own chain it may follow another: that of its own
        past, or of somebody with the same past."""
        memory, frame = self._memory, self._memory.framed(request)

        tokenized = bare_prompt(request) or rendered_prompt

        async def drafted(on: Sequence[Piece]) -> Draft:
            return await asyncio.to_thread(memory.draft, messages, on, tokenized, frame)

        draft = await drafted(chain)
        if request.mode == "say" or request.prompt is not None:
            return draft
        other = await memory.trace(draft)
        return await drafted(other) if len(other) > draft.prompt.num_known else draft
