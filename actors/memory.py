"""An agent's memory: where it stands, what of a prompt it knows already, and how it grows."""

import contextlib
import time
from collections.abc import Callable, Sequence

import msgspec

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.company import Company
from greenroom.actors.fetching import fetch
from greenroom.actors.gpu_messages import Named
from greenroom.actors.keeper_messages import Keep, Outline, Settle, Warm
from greenroom.actors.roster import no_response, unknown
from greenroom.actors.store_messages import (
    Adopt,
    Commit,
    FindAgent,
    Forget,
    Known,
    LetGo,
    Match,
    Recall,
    Trace,
)
from greenroom.actors.turn import (
    Answer,
    Draft,
    is_known,
    is_prefix,
    make_segments,
    remembered,
)
from greenroom.runtime import job as stage
from greenroom.runtime.agent_records import AgentInfo, Overflow
from greenroom.runtime.codec import link
from greenroom.runtime.errors import ActorStopped, MailboxFull
from greenroom.runtime.frame import PLAIN, Frame, today
from greenroom.runtime.job import Job, JobDone
from greenroom.runtime.records import ChatMessage, Sampling, TurnRequest
from greenroom.runtime.resume import Link, prompt_limit, resume_at, stand_at
from greenroom.runtime.segments import Piece, chain_length, cut
from greenroom.runtime.text import Prompt, Remembered, Text

Tokenized = Callable[[Text, Sequence[ChatMessage], Sequence[Remembered], Frame], Prompt]
"""From messages, and the remembered runs of what they render to, to the prompt's tokens."""
SILENT = Sampling(temperature=0.0, top_p=1.0, seed=0)
"""For jobs that generate nothing."""


class Memory:
    """The head of an agent's chain, and the stage's decoded copy of the chain up to there.

    ``load`` comes first. A crash reverts to the last committed head, since that is what is loaded.
    """

    def __init__(self, key: AgentKey, company: Company) -> None:
        self._key = key
        self._company = company
        self.head: str | None = None
        self.system: str | None = None
        self.scope = key.namespace
        self.frame = PLAIN
        self.rehearsal: int | None = None  # the job that computes ahead what follows the head
        self._handle: int | None = None
        self._copied: tuple[Piece, ...] = ()  # the chain that the handle stands for

    async def load(self) -> None:
        """Find out where the agent stood."""
        known = await self._find()
        self.head = self.system = self._handle = None
        self.scope, self.frame = self._key.namespace, PLAIN
        if known is not None:
            self.head, self.system, self.scope = known.info.head, known.info.system, known.scope
            self.frame = known.frame
        if not self.frame.date and self._company.facts.text.template.is_dated:
            self.frame = msgspec.structs.replace(self.frame, date=today())

    async def info(self) -> AgentInfo:
        """What is known of the agent. Raises NotFound where it has been forgotten."""
        known = await self._find()
        if known is None:
            raise unknown(self._key.name)
        return known.info

    async def overflow(self) -> Overflow:
        """What becomes of a history that outgrows the window: as it was last agreed."""
        known = await self._find()
        return (known.info.overflow if known else None) or self._company.overflow

    async def _find(self) -> Known | None:
        return await self._company.store.ask(FindAgent(self._key))

    def let_go(self) -> None:
        """The turn is over: what it has matched may be evicted, unless a head needs it."""
        with contextlib.suppress(MailboxFull, ActorStopped):  # held until the next turn, then
            self._company.store.tell(LetGo(self._key))

    def warm(self, chain: Sequence[Piece]) -> None:
        """Have the bytes of a chain read while what is said next is still being tokenized."""
        ours = [
            p.segment.id for p in chain if p.segment.fingerprint == self._company.facts.fingerprint
        ]
        with contextlib.suppress(MailboxFull, ActorStopped):  # then they are read when fetched
            self._company.keeper.tell(Warm(tuple(ours)))

    async def chain(self, at: str | None = None) -> tuple[Piece, ...]:
        """The chain up to the head, or up to ``at`` another segment that the agent may have."""
        chain = await self._company.store.ask(Recall(self.head if at is None else at))
        if at is not None and (not chain or chain[-1].segment.namespace != self.scope):
            raise no_response(at)
        return chain

    def framed(self, request: TurnRequest) -> Frame:
        """What the turn's prompt is rendered with; a "say" that tells no tools and no variables
        goes on with those of the turn before."""
        tools, kwargs = request.tools, request.template_kwargs
        if request.mode == "say":
            tools, kwargs = tools or self.frame.tools, kwargs or self.frame.kwargs
        return Frame(tools, kwargs, self.frame.date)

    def draft(
        self,
        messages: Sequence[ChatMessage],
        chain: Sequence[Piece],
        tokenized: Tokenized,
        frame: Frame | None = None,
    ) -> Draft:
        """Render and tokenize: work that grows with the context, to be done off the event loop."""
        facts = self._company.facts
        known = remembered(chain, facts.fingerprint, facts.text.decode)
        frame = frame or self.frame
        return Draft(
            namespace=self.scope,
            fingerprint=facts.fingerprint,
            codec=self._company.codec,
            matched=(),
            messages=tuple(messages),
            prompt=tokenized(facts.text, messages, known, frame),
            frame=frame,
        )

    async def trace(self, draft: Draft) -> tuple[Piece, ...]:
        """The chain that a prompt follows as text, whoever remembers it."""
        rendered = "".join(span.text for span in draft.prompt.spans)
        return await self._company.store.ask(Trace(self.scope, rendered))

    async def match(
        self, draft: Draft, limit: int | None = None
    ) -> tuple[Draft, tuple[stage.Piece, ...]]:
        """Find what of the prompt's first ``limit`` tokens is remembered, and have its bytes ready.

        A segment that turns out lost or damaged is forgotten, and the turn goes on from the
        deepest good one before it. What is matched may be less than what is stored: a sliding
        window must still hold what the next token sees.
        """
        store = self._company.store
        matched = await store.ask(Match(self.scope, draft.prompt.tokens[:limit], self._key))
        fetched = await fetch(self._company.keeper, [p.segment.id for p in matched])
        if fetched.bad is not None:
            await store.ask(Forget(fetched.bad))
        good = matched[: len(fetched.payloads)]
        spec = self._company.facts.spec
        links = [link(spec, p, m.used) for p, m in zip(fetched.payloads, good, strict=True)]
        standing = cut(good, stand_at(links, spec.windows))
        pieces = zip(fetched.payloads, standing, strict=False)
        return (
            msgspec.structs.replace(draft, matched=standing),
            tuple(stage.Piece(each, piece.used, piece.segment.id) for each, piece in pieces),
        )

    def job(
        self,
        draft: Draft,
        pieces: tuple[stage.Piece, ...],
        sampling: Sampling = SILENT,
        max_tokens: int = 0,
        *,
        background: bool = False,
        rehearses: bool = False,
    ) -> Job:
        """The prompt as a job for the stage, which by default generates nothing.

        One that ``rehearses`` is open. Any other takes over from it what it can.
        """
        ends = (len(draft.prompt.tokens),) if rehearses else ()
        return Job(
            tokens=draft.prompt.tokens,
            pieces=pieces,
            encode_from=chain_length(draft.matched),
            boundaries=tuple(b for b in draft.boundaries if b not in ends),
            max_tokens=max_tokens,
            stop_tokens=self._company.facts.text.stop_tokens,
            sampling=sampling,
            handle=self._handle if is_prefix(draft.matched, self._copied) else None,
            background=background,
            scope=draft.namespace,
            open=rehearses,
            rehearsal=None if rehearses else self.rehearsal,
        )

    async def grow(self, draft: Draft, answer: Answer | None, uid: int, done: JobDone) -> None:
        """Make what a job brought durable and move the head; ``answer`` None if it was silent."""
        text = self._company.facts.text
        runs = [e for e in done.segments if e.start < len(draft.prompt.tokens)]
        cuts = [*(e.start for e in runs), *(e.stop for e in runs[-1:])]
        texts = text.slices(draft.prompt, cuts)
        segments = make_segments(draft, done.segments, answer, texts, time.time())
        payloads = [e.payload for e in done.segments]
        head = segments[-1].id if segments else self.head
        kept = Keep(tuple(zip(segments, payloads, strict=True)))
        try:
            is_new = await self._company.keeper.ask(kept)
            await self._company.store.ask(Commit(self._key, segments, head, draft.frame))
        finally:
            self._company.keeper.tell(Settle(tuple(s.id for s in segments)))
        self.frame = draft.frame
        self.head = head
        self._handle = None
        if segments and is_new:
            with contextlib.suppress(MailboxFull, ActorStopped):  # then nobody may have the copy
                self._company.gpu.tell(Named(uid, tuple(each.id for each in segments)))
                self._handle = uid
        self._copied = (*draft.matched, *(Piece(s, s.num_tokens) for s in segments))

    async def stand(self, draft: Draft) -> None:
        """Move the head to the end of what the draft has matched: ``is_known`` is true of it."""
        assert is_known(draft)
        await self.move(draft.matched[-1].segment.id, draft.frame)

    async def move(self, head: str, frame: Frame | None = None) -> None:
        """Stand at another segment."""
        await self._company.store.ask(Commit(self._key, (), head, frame))
        self.head = head

    async def adopt(self, arrived: Adopt) -> AgentInfo:
        """Stand where a memory from elsewhere ends. Raises Conflict where there is one already."""
        info = await self._company.store.ask(arrived)
        await self.load()
        return info

    async def foresee(self, draft: Draft) -> int:
        """How many of the prompt's tokens the stage would find cached; reads no bytes."""
        matched = await self._company.store.ask(Match(self.scope, draft.prompt.tokens))
        links = await outline(self._company, matched)
        spec = self._company.facts.spec
        standing = cut(matched, stand_at(links, spec.windows))
        links = [
            msgspec.structs.replace(each, used=piece.used)
            for each, piece in zip(links, standing, strict=False)
        ]
        limit = prompt_limit(links, len(draft.prompt.tokens))
        return resume_at(links, spec.windows, stateful=spec.stateful, limit=limit)


async def outline(company: Company, chain: Sequence[Piece]) -> list[Link]:
    """What the segments of a chain hold, up to the first whose bytes are gone.

    Nothing where any of it is another model's.
    """
    ours = [piece for piece in chain if piece.segment.fingerprint == company.facts.fingerprint]
    chain = ours if len(ours) == len(chain) else ()
    found = await company.keeper.ask(Outline(tuple(piece.segment.id for piece in chain)))
    links: list[Link] = []
    for held, piece in zip(found, chain, strict=True):
        if held is None:
            break
        links.append(msgspec.structs.replace(held, used=piece.used))
    return links
