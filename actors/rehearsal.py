"""What an agent is about to hear, computed on the stage while it is still being said."""

import asyncio
import contextlib
import secrets

from greenroom.actors.company import Company
from greenroom.actors.gpu_messages import Extend, Generate
from greenroom.actors.hearing import Background, Hearing
from greenroom.actors.memory import Memory
from greenroom.actors.turn import Draft, past, unknown
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ActorStopped, GreenroomError, InvalidRequest, MailboxFull
from greenroom.runtime.hearsay import heard_prompt
from greenroom.runtime.job import JobEvent
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.segments import chain_length

LASTS_S = 5.0
"""How long a rehearsal stays on stage when nothing more is said: it takes memory."""


class Rehearsal:
    """A job on stage that holds the agent's chain, what it was told since and what is being said.

    Nothing of it is remembered: the job that brings all of that takes its floats over. While it
    lasts, what is pending waits for that job, too.
    """

    def __init__(
        self, company: Company, memory: Memory, hearing: Hearing, background: Background
    ) -> None:
        self._company = company
        self._memory = memory
        self._hearing = hearing
        self._background = background
        self._events: Channel[JobEvent] | None = None
        self._tokens: tuple[int, ...] = ()  # those that the stage has been given
        self._head: str | None = None  # after which they come
        self._is_fresh = False

    async def follow(self, so_far: ChatMessage | None) -> None:
        """More of a message is known; with None nothing is being said any more.

        What cannot be heard is left to the turn that brings it.
        """
        if so_far is None:
            self.over()
            return
        try:
            if await self._hearing.hold():
                await self._hear(so_far)
        finally:
            if self._memory.rehearsal is None:
                self.over()

    async def _hear(self, so_far: ChatMessage) -> None:
        memory = self._memory
        chain = await memory.chain()
        before = past(chain, memory.system)
        told = [*before, *unknown([*self._hearing.pending, so_far], before)]
        with contextlib.suppress(InvalidRequest, MailboxFull, ActorStopped):
            draft = await asyncio.to_thread(memory.draft, told, chain, heard_prompt)
            if len(draft.prompt.tokens) < self._company.facts.context_window:
                await self._go_on(draft)

    def over(self) -> None:
        """Nothing is being said any more; what is pending is heard for good."""
        if not self._hearing.pending:
            self.end()
        self._hearing.resume()

    def end(self) -> None:
        """Whatever it was for has come, or does not come."""
        self._memory.rehearsal = None
        if self._events is not None:
            self._events.cancel()
            self._events = None

    async def _go_on(self, draft: Draft) -> None:
        memory, tokens = self._memory, draft.prompt.tokens
        known = len(self._tokens)
        self._is_fresh = True
        if memory.rehearsal is None or memory.head != self._head or tokens[:known] != self._tokens:
            await self._begin(draft)
        elif len(tokens) > known:
            self._company.gpu.tell(Extend(memory.rehearsal, tokens[known:]))
            self._tokens = tokens

    async def _begin(self, draft: Draft) -> None:
        self.end()
        memory = self._memory
        draft, pieces = await memory.match(draft)
        if chain_length(draft.matched) == len(draft.prompt.tokens):
            return  # somebody has heard it all before
        uid, events = secrets.randbits(62), Channel[JobEvent](8)
        job = memory.job(draft, pieces, background=True, rehearses=True)
        self._company.gpu.tell(Generate(uid, job, events))
        memory.rehearsal, self._events = uid, events
        self._tokens, self._head = draft.prompt.tokens, memory.head
        self._background(self._stay(uid, events))

    async def _stay(self, uid: int, events: Channel[JobEvent]) -> None:
        """Until its floats have been taken over, or nothing has been said for a while."""
        async with events:
            ended = asyncio.ensure_future(_ended(events))
            while not ended.done():
                self._is_fresh = False
                await asyncio.wait([ended], timeout=LASTS_S)
                if not ended.done() and not self._is_fresh:
                    self.over()
        if self._memory.rehearsal == uid:
            self.end()


async def _ended(events: Channel[JobEvent]) -> None:
    """Wait until a job is off the stage, for whatever reason."""
    with contextlib.suppress(GreenroomError):
        async for _ in events:
            pass
