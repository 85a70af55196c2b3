"""An agent: a named conversation with a life of its own, one turn at a time."""

import asyncio
import time
from functools import partial
from typing import assert_never

import msgspec

from greenroom.actors.agent_messages import (
    AgentKey,
    AgentMessage,
    Arrive,
    Attend,
    Fork,
    Hear,
    Overhear,
    Rollback,
    Turn,
    Vanish,
)
from greenroom.actors.choice import Choice, Terms, asks_much, siblings, terms, together
from greenroom.actors.company import Company
from greenroom.actors.custodian_messages import Erase
from greenroom.actors.drafting import Drafting
from greenroom.actors.hearing import Hearing
from greenroom.actors.memory import Memory
from greenroom.actors.outbox import Outbox
from greenroom.actors.rehearsal import Rehearsal
from greenroom.actors.store_messages import Adopt, Branch, Retire
from greenroom.actors.turn import (
    Answer,
    Draft,
    answered,
    clip_max_tokens,
    fill_sampling,
    find_segment,
)
from greenroom.actors.whole import whole
from greenroom.runtime.actor import Actor
from greenroom.runtime.agent_records import Forgotten
from greenroom.runtime.errors import ChannelCancelled, NotFound
from greenroom.runtime.job import Job, JobDone
from greenroom.runtime.overflow import fullness
from greenroom.runtime.records import TextDelta, Timings, TurnDone, TurnEvent, TurnStarted, Usage
from greenroom.runtime.segments import chain_length


class AgentActor(Actor[AgentMessage]):
    """Takes turns and remembers them, and hears what it is told in between.

    A crash reverts it to the last committed head, since that is what it starts from.
    """

    def __init__(self, key: AgentKey, company: Company) -> None:
        self._key = key
        self._company = company
        self._memory = Memory(key, company)

    async def on_start(self) -> None:
        """Find out where it stood."""
        background = self.context.background
        self._hearing = Hearing(self._company, self._memory, background)
        self._rehearsal = Rehearsal(self._company, self._memory, self._hearing, background)
        await self._memory.load()

    async def on_stop(self) -> None:
        """What was heard is not lost, unless the stage or the disk cannot take it any more."""
        await self._hearing.finish()
        self._rehearsal.end()
        self._memory.let_go()

    async def handle(self, message: AgentMessage) -> object:
        """Take the turn, see to it that something is heard (nobody waits for that), or do with
        the memory what is asked, once all that was told before is in it."""
        match message:
            case Turn():
                await self._turn(message)
            case Hear(told):
                self._hearing.tell(told)
            case Overhear(so_far):
                await self._rehearsal.follow(so_far)
            case Attend(reply, settled):
                self._hearing.attend(reply, settled=settled)
            case Fork(name, at):
                await self._hearing.finish()
                chain = await self._memory.chain()
                head = self._memory.head if at is None else find_segment(chain, at, "at")
                return await self._company.store.ask(Branch(self._key, name, head))
            case Rollback(to):
                await self._hearing.finish()
                self._rehearsal.end()
                head = find_segment(await self._memory.chain(), to, "to")
                await whole(self._memory.move(head))
                return await self._memory.info()
            case Arrive(wanted, salt, segments, frame):
                await self._hearing.finish()
                self._rehearsal.end()
                return await whole(self._memory.adopt(Adopt(wanted, salt, segments, frame)))
            case Vanish(overdue):
                return await whole(self._vanish(overdue=overdue))
            case _:
                assert_never(message)
        return None

    async def _vanish(self, *, overdue: bool) -> Forgotten:
        """Whoever is spawned under this name afterwards knows nothing."""
        company = self._company
        await self._hearing.pause()
        doomed = await company.store.ask(Retire(self._key, overdue))
        if doomed is None:
            self._hearing.resume()
            return Forgotten(0, 0)
        self._hearing.drop()
        self._rehearsal.end()
        freed = await company.custodian.ask(Erase(doomed))
        await self._memory.load()
        self.context.stop()
        return Forgotten(freed.num_segments, freed.num_bytes)

    async def _turn(self, turn: Turn) -> None:
        """What is wrong with the request is told to the caller, and no more."""
        meter = self._company.meter
        try:
            await self._take(turn)
        except ChannelCancelled:  # the caller has left, the work has ended
            meter.broken("left")
        except asyncio.CancelledError:
            meter.broken("left")
            raise
        except Exception:
            meter.broken("failed")
            raise
        finally:
            self._rehearsal.end()
            self._memory.let_go()
            self._hearing.resume()
        turn.reply.close()

    async def _take(self, turn: Turn) -> None:
        facts = self._company.facts
        await self._hearing.pause()
        # Who brings the whole history decides what is in it; what is heard comes after it.
        heard = self._hearing.pending if turn.request.mode == "say" else ()
        chain = await self._memory.chain(turn.request.follows)
        if (said := answered(turn.request, chain)) is not None:
            await self._repeat(turn, said, chain_length(chain))
            return
        if not turn.request.messages and turn.request.prompt is None:
            raise NotFound("nothing was answered under this key", param="key", code="unanswered")
        self._memory.warm(chain)
        drafting = Drafting(self._key, self._company, self._memory)
        draft, notices = await drafting.prompt(turn.request, chain, heard)
        max_tokens = clip_max_tokens(turn.request, draft.prompt, facts.context_window)
        draft, pieces = await self._memory.match(draft)
        sampling = fill_sampling(turn.request.sampling, facts)
        end = draft.prompt.spans[-1].text
        agree = partial(terms, facts.text, turn.request, sampling, end)
        agreed = await asyncio.to_thread(agree) if asks_much(turn.request) else agree()
        job = self._memory.job(draft, pieces, agreed.sampling, max_tokens)
        job = msgspec.structs.replace(job, priority=turn.request.priority)
        await self._perform(turn, draft, job, agreed, len(heard), notices)

    async def _repeat(self, turn: Turn, said: str, num_tokens: int) -> None:
        """Tell once more what was answered under this key: its caller did not get it, or forgot."""
        outbox = Outbox(turn.reply)
        passed_ms = 1e3 * (time.perf_counter() - turn.arrived)
        outbox.put(TurnStarted(self._key.name, num_tokens, num_tokens))
        outbox.put(TextDelta(said, ()))
        outbox.put(
            TurnDone(
                agent=self._key.name,
                text=said,
                finish_reason="stop",
                usage=Usage(num_tokens, 0, num_tokens),
                timings=Timings(passed_ms, 0.0, passed_ms, 0.0, 0.0),
                head=self._memory.head,
            )
        )
        await outbox.flush()

    async def _perform(
        self,
        turn: Turn,
        draft: Draft,
        job: Job,
        agreed: Terms,
        num_heard: int,
        notices: tuple[str, ...],
    ) -> None:
        """Have the stage run the job, tell the caller what comes, and remember it."""
        request = turn.request
        choices = [Choice(self._company, request, agreed, n) for n in range(request.n)]
        outbox = Outbox(turn.reply)
        jobs = siblings(job, agreed, choices[0].uid, request.n)
        started = asyncio.Event()
        done, *_ = await together(
            [
                choice.perform(self._key.name, job, outbox, started)
                for choice, job in zip(choices, jobs, strict=True)
            ]
        )
        window = self._company.facts.context_window
        known = (*notices, *agreed.notices)
        ended = _Ended(choices, len(job.tokens), done, num_heard, window, known)
        ending = asyncio.ensure_future(self._finish(turn, outbox, draft, ended))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # a caller who leaves now does not undo a turn that is over
            raise

    async def _finish(
        self,
        turn: Turn,
        outbox: Outbox[TurnEvent],
        draft: Draft,
        ended: "_Ended",
    ) -> None:
        """Make the turn durable, move the head, and tell the caller."""
        emitted = time.perf_counter()
        if self._company.durable_turns:
            await self._remember(turn, draft, ended)
            await self._tell_done(turn, outbox, ended, emitted)
            return
        try:
            await self._tell_done(turn, outbox, ended, emitted)
        finally:
            await self._remember(turn, draft, ended)

    async def _remember(self, turn: Turn, draft: Draft, ended: "_Ended") -> None:
        stop = ended.done.segments[-1].stop if ended.done.segments else 0
        said = ended.choices[0]
        kept = said.tokens[: max(0, stop - len(draft.prompt.tokens))]
        answer = Answer(
            visible=said.parts.content,
            tokens=tuple(kept),
            text=said.kept_text,
            key=turn.request.key,
            reasoning=said.parts.reasoning or None,
            tool_calls=said.parts.calls,
        )
        await self._memory.grow(draft, answer, said.uid, ended.done)
        self._hearing.taken(ended.num_heard)

    async def _tell_done(
        self,
        turn: Turn,
        outbox: Outbox[TurnEvent],
        ended: "_Ended",
        emitted: float,
    ) -> None:
        times = ended.done.times
        said, *others = [choice.alternative for choice in ended.choices]
        now = time.perf_counter()
        done = TurnDone(
            agent=self._key.name,
            text=said.text,
            finish_reason=said.finish_reason,
            reasoning=said.reasoning,
            tool_calls=said.tool_calls,
            others=tuple(others),
            usage=ended.usage,
            notices=ended.notices,
            timings=Timings(
                queue_ms=1e3 * (times.admitted - turn.arrived),
                restore_ms=1e3 * times.restore_s,
                ttft_ms=1e3 * (times.first_token - turn.arrived),
                decode_ms=1e3 * (times.last_token - times.first_token),
                commit_ms=1e3 * (now - emitted),
                prefill_ms=1e3 * times.prefill_s,
                max_gap_ms=1e3 * times.max_gap_s,
            ),
            head=self._memory.head if self._company.durable_turns else None,
        )
        self._company.meter.done(done)
        outbox.put(done)
        await outbox.flush()


class _Ended(msgspec.Struct):
    """All that came of a turn's jobs."""

    choices: list[Choice]
    num_prompt: int
    done: JobDone
    num_heard: int
    window: int
    known: tuple[str, ...]  # notices that were due before anything was said

    @property
    def usage(self) -> Usage:
        """The prompt counts once, however many answers it has."""
        return Usage(
            self.num_prompt,
            sum(len(c.tokens) for c in self.choices),
            self.choices[0].num_cached,
            sum(c.num_reasoning for c in self.choices),
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """What the caller should know beside the answer."""
        num_tokens = self.num_prompt + len(self.choices[0].tokens)
        told = [*self.known, *fullness(num_tokens, self.window)]
        if unread := sum(c.parts.unread for c in self.choices):
            told.append(
                f"tool_call_unread: {unread} calls could not be read and are told as content"
            )
        if broken := sum(c.parts.broken for c in self.choices):
            told.append(
                f"tool_call_broken: the arguments of {broken} calls are not whole, or not JSON"
            )
        if any(c.out_of_memory for c in self.choices):
            told.append("out_of_memory: there was no memory for another token of the answer")
        return tuple(told)
