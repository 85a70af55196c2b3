"""What an agent does with a history that outgrows the context window, as its policy says."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.company import Company
from greenroom.actors.gpu_messages import Finish, Generate
from greenroom.actors.memory import SILENT, Memory
from greenroom.actors.store_messages import Pinned, Recall
from greenroom.actors.turn import Draft
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.job import Job, JobDone, JobEnded, JobEvent, JobTokens
from greenroom.runtime.overflow import INSTRUCTION, Cut, cut
from greenroom.runtime.records import ChatMessage, TurnRequest
from greenroom.runtime.template import num_characters

Drafted = Callable[[Sequence[ChatMessage]], Awaitable[Draft]]
"""From messages to the prompt of a turn of this agent."""
SUMMARY_TOKENS = 512
"""A summary has at most so many, and at most an eighth of the window."""
_TRIES = 4  # sizes are estimates: half the room each time


class Shortening:
    """One agent's way to keep within the window."""

    def __init__(self, key: AgentKey, company: Company, memory: Memory) -> None:
        self._key = key
        self._company = company
        self._memory = memory

    async def fit(
        self, request: TurnRequest, draft: Draft, drafted: Drafted, *, ahead: bool = False
    ) -> tuple[Draft, tuple[str, ...]]:
        """The draft of a turn, shorter if it leaves no room for an answer, and what was done.

        It comes back as it is where the policy is "error", or where nothing can be left out.
        ``ahead`` of the turn nothing is summarized: a few dots stand for what that would give.
        """
        window = self._company.facts.context_window
        # An answer of unknown length is given an eighth of the window to begin with.
        reserve = min(request.max_tokens or window // 8, window // 4)
        most = window - reserve
        if request.prompt is not None or len(draft.prompt.tokens) <= most:
            return draft, ()
        policy = await self._memory.overflow()
        if policy == "error":
            return draft, ()
        sizes = await asyncio.to_thread(self._sizes, draft)
        pinned = await self._pinned(draft.messages)
        room = int(self._company.overflow_keep * window)
        for _ in range(_TRIES):
            shorter = cut(draft.messages, sizes, room, pinned)
            if shorter is None:
                break
            summarized = policy == "summarize"
            left = most - (self._summary_tokens if summarized else 0)
            noted = await drafted(shorter.joined())
            if len(noted.prompt.tokens) > left:
                room //= 2
                continue
            if summarized and (
                summary := "..." if ahead else await self._summary(draft, shorter, drafted)
            ):
                return await drafted(shorter.joined(summary)), (_told(shorter, "summarized"),)
            return noted, (_told(shorter, "dropped"),)
        return draft, ()

    @property
    def _summary_tokens(self) -> int:
        return min(SUMMARY_TOKENS, self._company.facts.context_window // 8)

    def _sizes(self, draft: Draft) -> list[int]:
        """About how many tokens each message has; together they have the prompt's."""
        text = self._company.facts.text
        whole = len(draft.prompt.tokens)
        sizes = [
            len(text.encode(m.content)) + (num_characters(m) - len(m.content)) // 4 + 8
            for m in draft.messages
        ]
        return [-(-size * whole // sum(sizes)) for size in sizes]

    async def _pinned(self, messages: Sequence[ChatMessage]) -> list[int]:
        """The places of messages that segments brought which the agent has pinned."""
        ids = await self._company.store.ask(Pinned(self._key))
        # Where something was left out before, what is pinned is on a branch of its own by now.
        chains = [await self._company.store.ask(Recall(each)) for each in ids]
        pinned = [
            msgspec.convert(message, ChatMessage)
            for chain in chains
            for piece in chain[-1:]
            for message in piece.segment.messages
        ]
        return [n for n, message in enumerate(messages) if message in pinned]

    async def _summary(self, draft: Draft, shorter: Cut, drafted: Drafted) -> str:
        """What the model makes of all that is left out; "" where that fits no window either."""
        before = draft.messages[: len(draft.messages) - len(shorter.kept)]
        try:
            asked = await drafted([*before, ChatMessage("user", INSTRUCTION)])
        except InvalidRequest:  # the template wants it otherwise
            return ""
        tokens = len(asked.prompt.tokens)
        if tokens + self._summary_tokens > self._company.facts.context_window:
            return ""
        asked, pieces = await self._memory.match(asked)
        job = self._memory.job(asked, pieces, SILENT, self._summary_tokens)
        # It is no turn: nothing of it is remembered, and the copy on stage stays the agent's.
        job = msgspec.structs.replace(job, encode_from=tokens, boundaries=(), handle=None)
        return (await self._run(job)).rpartition("</think>")[2].strip()

    async def _run(self, job: Job) -> str:
        uid = secrets.randbits(62)
        reader = self._company.facts.text.reader(())
        async with Channel[JobEvent](job.max_tokens + len(job.tokens) + 8) as events:
            self._company.gpu.tell(Generate(uid, job, events))
            async for event in events:
                match event:
                    case JobTokens(tokens):
                        reader.read(tokens)
                    case JobEnded():
                        reader.end()
                        self._company.gpu.tell(Finish(uid, 0))
                    case JobDone():
                        break
                    case _:
                        pass
        return reader.text


def _told(shorter: Cut, done: str) -> str:
    number = len(shorter.left_out)
    return f"context_{done}: the oldest {number} messages did not fit and were {done}"
