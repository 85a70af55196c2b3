"""What an agent is told while nobody waits for its answer: taken in beside its mailbox."""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from greenroom.actors.company import Company
from greenroom.actors.gpu_messages import Generate, Promote
from greenroom.actors.memory import Memory
from greenroom.actors.turn import Draft, is_known, past, unknown
from greenroom.runtime.agent_records import Heard
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import GreenroomError, InvalidRequest
from greenroom.runtime.hearsay import beginning, heard_prompt
from greenroom.runtime.job import Job, JobDone, JobEvent
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.segments import chain_length

JOB_TOKENS = 512
"""At most in one job: what is encoded at its end holds everybody up, and a turn waits for it."""
Background = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine beside the mailbox, for as long as the actor's generation lasts."""


class Hearing:
    """Messages that an agent was told, on their way into its memory.

    All that wait together are taken in together, one job at a time. What the stage or the disk
    refuses stays pending, to be tried with the next message or turn; what can never be taken in
    (too long, refused by the template) is dropped.
    """

    def __init__(self, company: Company, memory: Memory, background: Background) -> None:
        self._company = company
        self._memory = memory
        self._background = background
        self._pending: deque[ChatMessage] = deque()
        self._waiting: list[Channel[Heard]] = []
        self._held = False  # nothing new begins
        self._hurried = False  # somebody waits for what runs
        self._uid: int | None = None
        self._events: Channel[JobEvent] | None = None  # of what runs
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def pending(self) -> tuple[ChatMessage, ...]:
        """What is not in memory yet, oldest first."""
        return tuple(self._pending)

    def tell(self, message: ChatMessage) -> None:
        """Take a message in as soon as there is time; once, if it has a key."""
        if unknown([message], self._pending):
            self._pending.append(message)
        if not self._held:
            self.resume()

    def attend(self, reply: Channel[Heard], *, settled: bool) -> None:
        """Tell ``reply`` how far it has got; if ``settled``, once nothing is pending."""
        if settled and self._pending:
            self._waiting.append(reply)
            self.resume()
        else:
            self._answer(reply)

    async def hold(self) -> bool:
        """Let nothing new begin until ``resume``, and take off the stage what runs: what is pending
        is computed together with what is still being said. False while somebody waits for it."""
        if self._waiting or self._hurried:
            return False
        self._held = True
        if self._events is not None:
            self._events.cancel()
        await self._idle.wait()
        return True

    async def pause(self) -> None:
        """Let nothing new begin, and wait for what runs, which is in the foreground now.

        What is left ``pending`` then belongs to whoever paused, until ``resume``.
        """
        self._held = True
        await self._hurry()

    async def finish(self) -> None:
        """Take in all that is pending, in the foreground: this is the end."""
        self.resume()
        await self._hurry()

    def taken(self, num_messages: int) -> None:
        """The oldest pending messages have become part of a turn."""
        for _ in range(num_messages):
            self._pending.popleft()

    def drop(self) -> None:
        """Forget what is left pending after a ``pause``; whoever waits for it need not any more."""
        self._pending.clear()
        self._held = False
        for reply in self._waiting:
            self._answer(reply)
        self._waiting = []

    def resume(self) -> None:
        """Go on, if there is anything."""
        self._held = False
        if self._pending and self._idle.is_set():
            self._idle.clear()
            self._background(self._listen())

    async def _hurry(self) -> None:
        if self._idle.is_set():
            return
        self._hurried = True
        if self._uid is not None:
            self._company.gpu.tell(Promote(self._uid))
        try:
            await self._idle.wait()
        finally:
            self._hurried = False

    async def _listen(self) -> None:
        try:
            while self._pending and not self._held:
                await self._hear(self.pending)
        except GreenroomError as error:
            for reply in self._waiting:
                reply.fail(error)
            self._waiting = []
        finally:
            self._idle.set()
        if not self._pending:
            for reply in self._waiting:
                self._answer(reply)
            self._waiting = []

    async def _hear(self, told: Sequence[ChatMessage]) -> None:
        """Take in the beginning of what was told: all of it, unless it is long."""
        memory = self._memory
        chain = await memory.chain()
        before = past(chain, memory.system)
        new = unknown(told, before)
        if not new:
            self.taken(len(told))
            return
        try:
            draft = await asyncio.to_thread(memory.draft, [*before, *new], chain, heard_prompt)
            self._check_size(draft)
        except InvalidRequest:
            if await memory.overflow() == "error":
                self.taken(len(told))  # it would be refused again
            raise  # else the next turn makes room
        draft, pieces = await memory.match(draft)
        if is_known(draft):
            await memory.stand(draft)
            self.taken(len(told))
            return
        length = len(draft.prompt.tokens)
        if chain_length(draft.matched) == length:
            # Known to somebody, though not in these words: one token stands for them.
            draft, pieces = await memory.match(draft, length - 1)
        stop = chain_length(draft.matched) + JOB_TOKENS
        whole = length <= stop
        if not whole:
            text = self._company.facts.text
            prompt = await asyncio.to_thread(beginning, text, draft.prompt, stop)
            draft = msgspec.structs.replace(draft, prompt=prompt, messages=tuple(before))
        if self._held and not self._hurried:
            return
        self._uid = uid = secrets.randbits(62)
        try:
            done = await self._run(uid, memory.job(draft, pieces, background=not self._hurried))
        finally:
            self._uid = None
        if done is None:
            return
        await memory.grow(draft, None, uid, done)
        if whole:
            self.taken(len(told))

    async def _run(self, uid: int, job: Job) -> JobDone | None:
        """None when the job was taken off the stage again."""
        async with Channel[JobEvent](capacity=8) as events:
            self._events = events
            try:
                self._company.gpu.tell(Generate(uid, job, events))
                async for event in events:
                    if isinstance(event, JobDone):
                        return event
            finally:
                self._events = None
        if events.cancelled:
            return None
        raise GreenroomError("the stage closed a job without ending it")

    def _check_size(self, draft: Draft) -> None:
        window = self._company.facts.context_window
        if len(draft.prompt.tokens) >= window:
            raise InvalidRequest(
                f"what was heard makes {len(draft.prompt.tokens)} tokens, and this model's context "
                f"window holds {window}, an answer included",
                param="content",
                code="context_length_exceeded",
            )

    def _answer(self, reply: Channel[Heard]) -> None:
        if not reply.closed:
            reply.send_nowait(Heard(len(self._pending), self._memory.head))
            reply.close()
