"""An agent: a named conversation with a life of its own, one turn at a time."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence

import msgspec

from greenroom.actors.messages import (
    AgentKey,
    AgentMessage,
    Commit,
    Fetch,
    FindAgent,
    Finish,
    Forget,
    Generate,
    GpuMessage,
    Keep,
    KeeperMessage,
    Match,
    ModelFacts,
    Recall,
    StoreMessage,
    Turn,
)
from greenroom.actors.outbox import Outbox
from greenroom.actors.turn import (
    Answer,
    Draft,
    clip_max_tokens,
    fill_sampling,
    is_prefix,
    make_segments,
    remembered,
    whole_history,
)
from greenroom.runtime import job as stage
from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.codec import link
from greenroom.runtime.errors import ChannelCancelled, GreenroomError
from greenroom.runtime.job import Job, JobDone, JobEnded, JobEvent, JobStarted, JobTokens
from greenroom.runtime.records import (
    FinishReason,
    TextDelta,
    Timings,
    TurnDone,
    TurnEvent,
    TurnRequest,
    TurnStarted,
    Usage,
)
from greenroom.runtime.ref import Ref
from greenroom.runtime.resume import stand_at
from greenroom.runtime.segments import Piece, chain_length, cut


class Company(msgspec.Struct, frozen=True):
    """Whom an agent works with, and what it knows of the model. ``codec`` as segments name it."""

    gpu: Ref[GpuMessage]
    keeper: Ref[KeeperMessage]
    store: Ref[StoreMessage]
    facts: ModelFacts
    codec: str
    durable_turns: bool


class _Performed(msgspec.Struct):
    """What one job brought: filled while it runs."""

    tokens: list[int] = []
    visible: str = ""
    kept_text: str = ""
    reason: FinishReason = "stop"


class AgentActor(Actor[AgentMessage]):
    """Takes turns and remembers them. Its only state is where it stands: the head of its chain.

    A crash reverts it to the last committed head, since that is what it starts from.
    """

    def __init__(self, key: AgentKey, company: Company) -> None:
        self._key = key
        self._company = company
        self._head: str | None = None
        self._handle: int | None = None  # the stage's decoded copy of the chain up to the head
        self._system: str | None = None

    async def on_start(self) -> None:
        """Find out where it stood."""
        info = await self._company.store.ask(FindAgent(self._key))
        if info is not None:
            self._head, self._system = info.head, info.system

    async def handle(self, message: AgentMessage) -> None:
        """Take the turn; what is wrong with the request is told to the caller, and no more."""
        with contextlib.suppress(ChannelCancelled):  # the caller has left, the work has ended
            await self._take(message)
        message.reply.close()

    async def _take(self, turn: Turn) -> None:
        facts = self._company.facts
        chain = await self._company.store.ask(Recall(self._head))
        draft = await asyncio.to_thread(self._draft, turn.request, chain)
        max_tokens = clip_max_tokens(turn.request, draft.prompt, facts.context_window)
        draft, pieces = await self._match(draft)
        stands = is_prefix(draft.matched, chain)
        job = Job(
            tokens=draft.prompt.tokens,
            pieces=pieces,
            encode_from=chain_length(draft.matched),
            boundaries=draft.boundaries,
            max_tokens=max_tokens,
            stop_tokens=facts.text.stop_tokens,
            sampling=fill_sampling(turn.request.sampling, facts),
            handle=self._handle if stands else None,
        )
        await self._perform(turn, draft, job)

    def _draft(self, request: TurnRequest, chain: Sequence[Piece]) -> Draft:
        """Render and tokenize: work that grows with the context, done off the event loop."""
        text = self._company.facts.text
        messages = whole_history(request, chain, self._system)
        rendered = text.render(messages)
        known = remembered(chain, self._company.facts.fingerprint, text.decode)
        # Where the system prompt ends is of use only while none of it is remembered.
        system_end = 0 if known else text.system_end(messages, rendered)
        prompt = text.tokenize(rendered, known, system_end)
        return Draft(
            namespace=self._key.namespace,
            fingerprint=self._company.facts.fingerprint,
            codec=self._company.codec,
            matched=(),
            messages=tuple(messages),
            prompt=prompt,
        )

    async def _match(self, draft: Draft) -> tuple[Draft, tuple[stage.Piece, ...]]:
        """Find what of the prompt is remembered, and have its bytes ready.

        A segment that turns out lost or damaged is forgotten, and the turn goes on from the
        deepest good one before it. What is matched may be less than what is stored: a sliding
        window must still hold what the next token sees.
        """
        store = self._company.store
        matched = await store.ask(Match(self._key.namespace, draft.prompt.tokens))
        fetched = await self._company.keeper.ask(Fetch(tuple(p.segment.id for p in matched)))
        if fetched.bad is not None:
            await store.ask(Forget(fetched.bad))
        good = matched[: len(fetched.payloads)]
        spec = self._company.facts.spec
        links = [link(spec, p, m.used) for p, m in zip(fetched.payloads, good, strict=True)]
        standing = cut(good, stand_at(links, spec.windows))
        pieces = zip(fetched.payloads, standing, strict=False)
        return (
            msgspec.structs.replace(draft, matched=standing),
            tuple(stage.Piece(payload, piece.used) for payload, piece in pieces),
        )

    async def _perform(self, turn: Turn, draft: Draft, job: Job) -> None:
        """Have the stage run the job, tell the caller what comes, and remember it."""
        uid = secrets.randbits(62)
        performed = _Performed()
        outbox = Outbox(turn.reply)
        # The stage never waits for a reader: its channel holds a whole answer, which is small.
        async with Channel[JobEvent](capacity=job.max_tokens + 8) as events:
            self._company.gpu.tell(Generate(uid, job, events))
            ended = await self._follow(uid, turn, outbox, events, performed, len(job.tokens))
        ending = asyncio.ensure_future(self._finish(turn, outbox, draft, performed, ended))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # a caller who leaves now does not undo a turn that is over
            raise

    async def _follow(
        self,
        uid: int,
        turn: Turn,
        outbox: Outbox[TurnEvent],
        events: Channel[JobEvent],
        performed: _Performed,
        num_prompt: int,
    ) -> "_Ended":
        text = self._company.facts.text
        reader = text.reader(turn.request.stop)
        cached = 0
        async for event in events:
            match event:
                case JobStarted(cached_tokens):
                    cached = cached_tokens
                    outbox.put(TurnStarted(self._key.name, num_prompt, cached))
                case JobTokens(tokens) if not reader.stopped:
                    performed.tokens += tokens
                    new = reader.read(tokens)
                    outbox.put(TextDelta(new, tokens))
                    if reader.stopped:
                        self._let_go(uid, performed, reader.text)
                case JobEnded(reason) if not reader.stopped:
                    performed.reason = reason
                    if tail := reader.end():
                        outbox.put(TextDelta(tail, ()))
                    self._let_go(uid, performed, reader.text)
                case JobDone():
                    return _Ended(uid, cached, num_prompt, event)
                case _:  # what the stage emitted before it knew of a stop string
                    pass
        raise GreenroomError("the stage closed a turn without ending it")

    def _let_go(self, uid: int, performed: _Performed, visible: str) -> None:
        keep, performed.kept_text = self._company.facts.text.kept(performed.tokens, visible)
        performed.visible = visible
        self._company.gpu.tell(Finish(uid, keep))

    async def _finish(
        self,
        turn: Turn,
        outbox: Outbox[TurnEvent],
        draft: Draft,
        performed: _Performed,
        ended: "_Ended",
    ) -> None:
        """Make the turn durable, move the head, and tell the caller."""
        emitted = time.perf_counter()
        if self._company.durable_turns:
            await self._remember(draft, performed, ended)
            await self._tell_done(turn, outbox, performed, ended, emitted)
            return
        try:
            await self._tell_done(turn, outbox, performed, ended, emitted)
        finally:
            await self._remember(draft, performed, ended)

    async def _remember(self, draft: Draft, performed: _Performed, ended: "_Ended") -> None:
        done = ended.done
        text = self._company.facts.text
        prompt_runs = [e for e in done.segments if e.start < len(draft.prompt.tokens)]
        cuts = [*(e.start for e in prompt_runs), *(e.stop for e in prompt_runs[-1:])]
        stop = done.segments[-1].stop if done.segments else 0
        kept = performed.tokens[: max(0, stop - len(draft.prompt.tokens))]
        answer = Answer(performed.visible, tuple(kept), performed.kept_text)
        segments = make_segments(
            draft, done.segments, answer, text.slices(draft.prompt, cuts), time.time()
        )
        payloads = [e.payload for e in done.segments]
        is_new = await self._company.keeper.ask(Keep(tuple(zip(segments, payloads, strict=True))))
        head = segments[-1].id if segments else self._head
        await self._company.store.ask(Commit(self._key, segments, head))
        self._head = head
        self._handle = ended.uid if segments and is_new else None

    async def _tell_done(
        self,
        turn: Turn,
        outbox: Outbox[TurnEvent],
        performed: _Performed,
        ended: "_Ended",
        emitted: float,
    ) -> None:
        times = ended.done.times
        now = time.perf_counter()
        outbox.put(
            TurnDone(
                agent=self._key.name,
                text=performed.visible,
                finish_reason=performed.reason,
                usage=Usage(ended.num_prompt, len(performed.tokens), ended.cached),
                timings=Timings(
                    queue_ms=1e3 * (times.admitted - turn.arrived),
                    restore_ms=1e3 * times.restore_s,
                    ttft_ms=1e3 * (times.first_token - turn.arrived),
                    decode_ms=1e3 * (times.last_token - times.first_token),
                    commit_ms=1e3 * (now - emitted),
                ),
                head=self._head if self._company.durable_turns else None,
            )
        )
        await outbox.flush()


class _Ended(msgspec.Struct, frozen=True):
    uid: int
    cached: int
    num_prompt: int
    done: JobDone
