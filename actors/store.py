"""The store: knows every agent and every segment, and keeps the index in step."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar, assert_never

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.group_commit import Change, GroupCommit
from greenroom.actors.roster import Roster, no_response, terms
from greenroom.actors.store_messages import (
    Adopt,
    Alteration,
    Branch,
    Commit,
    Dates,
    Enrol,
    Evict,
    FindAgent,
    Forget,
    Heir,
    Known,
    LetGo,
    ListAgents,
    Match,
    Measure,
    Overdue,
    Pin,
    Pinned,
    Question,
    Reach,
    Recall,
    Remove,
    Retire,
    Stored,
    StoreMessage,
    Survey,
    Trace,
    Unstored,
    Upkeep,
    Whose,
)
from greenroom.actors.whole import whole
from greenroom.runtime.actor import Actor
from greenroom.runtime.agent_records import AgentInfo
from greenroom.runtime.forest import Forest
from greenroom.runtime.index import Index
from greenroom.runtime.mending import Recover
from greenroom.runtime.rows import AgentRow, PinRow
from greenroom.runtime.segments import Piece, Segment, chain_length
from greenroom.runtime.start import remember

T = TypeVar("T")


class Store(Actor[StoreMessage]):
    """Answers from memory; what changes is in the index before it is in memory.

    What agents' turns change is committed in groups, beside the mailbox: nobody who only wants to
    know something waits for a sync. Whatever makes things go comes by itself.

    ``index`` is open, and stays so whatever becomes of this actor; ``thread`` is the one that it is
    used from. ``recover`` finds what the index has lost.
    """

    def __init__(
        self,
        index: Index,
        thread: Executor,
        fingerprint: str,
        recover: Recover = lambda segment_id: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._index = index
        self._fingerprint = fingerprint
        self._recover = recover
        self._now = now
        self._forest = Forest(fingerprint)
        self._roster = Roster(fingerprint, now)
        self._held: dict[AgentKey, str] = {}  # where running turns go on from
        self._thread = thread

    async def on_start(self) -> None:
        """Read the index."""
        self._changes = GroupCommit(self._index, self._thread, self.context.background)
        fingerprint, recover = self._fingerprint, self._recover
        contents, self._forest = await self._indexed(
            lambda: remember(self._index, fingerprint, recover)
        )
        for row in contents.agents:
            self._roster.know(row)
        for pin in contents.pins:
            self._roster.pin(pin)

    async def on_stop(self) -> None:
        """Write everything down."""
        await self._changes.settled()

    async def handle(self, message: StoreMessage) -> object:
        """Answer, and write down what changes."""
        match message:
            case Enrol() | Adopt() | Branch() | Commit():
                return await self._change(message)
            case Pin() | Retire() | Remove() | Survey() | Evict() | Unstored():
                await self._changes.settled()
                return await self._tend(message)
            case _:
                return self._answer(message)

    def _answer(self, message: Question) -> object:
        match message:
            case Match(namespace, tokens, holder):
                return self._match(namespace, tokens, holder)
            case LetGo(holder):
                self._held.pop(holder, None)
            case Recall(head):
                return self._forest.chain(head)
            case Whose(namespace, rendered):
                return self._roster.standing(self._forest.stand(namespace, rendered))
            case Heir(namespace, segment):
                return self._heir(namespace, segment)
            case Trace(namespace, rendered):
                return self._forest.trace(namespace, rendered)
            case Dates(namespace):
                return self._roster.dates(namespace)
            case FindAgent(key):
                return self._known(self._roster.get(key))
            case ListAgents(namespace):
                return tuple(self._info(row) for row in self._roster.of(namespace))
            case Pinned(key):
                return self._roster.pinned(key)
            case Overdue():
                return self._roster.overdue()
            case Measure():
                return Stored(len(self._roster), len(self._forest), self._forest.num_bytes())
            case Forget(segment_id):
                self._forest.lose(segment_id)
            case _:
                assert_never(message)
        return None

    async def _change(self, message: Alteration) -> object:
        """Begin to write what changes; the answer comes once it is durable."""
        match message:
            case Enrol(wanted):
                await self._changes.clear(AgentKey(wanted.namespace, wanted.name))
                return self._move(self._roster.enrolled(wanted))
            case Adopt(wanted, salt, segments, frame):
                await self._changes.clear(AgentKey(wanted.namespace, wanted.name))
                head = segments[-1].id if segments else None
                row = self._roster.adopted(wanted, salt, head, frame)
                return self._grow(row, segments, self._info)
            case Branch(key, name, head):
                await self._changes.clear(key, AgentKey(key.namespace, name))
                return self._move(self._roster.branched(key, name, head))
            case Commit(key, segments, head, frame):
                await self._changes.clear(key)
                row = self._roster.moved(key, head, frame)
                return self._grow(row, segments, lambda row: None)
            case _:
                assert_never(message)

    async def _tend(self, message: Upkeep) -> object:
        """Do, or say, what depends on all that is known; nothing is being written meanwhile."""
        match message:
            case Pin(key, segment, pinned):
                await whole(self._pin(key, segment, pinned=pinned))
            case Retire(key, overdue):
                return await whole(self._retire(key, overdue=overdue))
            case Survey():
                held = frozenset(self._held.values())
                return Reach(await self._indexed(self._index.rows), held, self._forest.everything())
            case Evict(ids):
                return await whole(self._evict(ids))
            case Unstored(ids):
                return tuple(each for each in ids if not self._forest.is_stored(each))
            case Remove(ids):
                return await whole(self._remove(ids))
            case _:
                assert_never(message)
        return None

    def _move(self, row: AgentRow) -> "AgentInfo | asyncio.Future[object]":
        key = AgentKey(row.namespace, row.name)
        known = self._roster.get(key)
        if row is known:
            return self._info(row)
        left = () if known is None else (known.head,)  # whence it goes, it was until now

        def settle() -> AgentInfo:
            self._roster.know(row)
            return self._info(row)

        return self._changes.add(Change(key, partial(self._index.commit, (), row, left), settle))

    def _grow(
        self, row: AgentRow, segments: tuple[Segment, ...], answer: Callable[[AgentRow], object]
    ) -> "asyncio.Future[object]":
        key = AgentKey(row.namespace, row.name)
        known = self._roster.get(key)
        used = {known.head if known else None, segments[0].parent if segments else None}

        def settle() -> object:
            for segment in segments:
                self._forest.add(segment)
            self._roster.know(row)
            self._held.pop(key, None)
            return answer(row)

        write = partial(self._index.commit, segments, row, used)
        return self._changes.add(Change(key, write, settle))

    def _match(
        self, namespace: str, tokens: tuple[int, ...], holder: AgentKey | None
    ) -> tuple[Piece, ...]:
        found = self._forest.match(namespace, tokens)
        if holder is not None:
            self._held.pop(holder, None)
            if found:
                self._held[holder] = found[-1].segment.id
        return found

    def _heir(self, namespace: str, segment: str) -> AgentKey | None:
        heir = self._roster.standing(self._forest.onward(segment))
        owner = (self._forest.scope(segment) or "").partition("/")
        # Within a scope of its own only who has that may go on.
        if segment not in self._forest or owner[0] != namespace or (owner[2] and heir is None):
            raise no_response(segment)
        return heir

    async def _evict(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        needed = {
            piece.segment.id
            for end in (*self._held.values(), *self._roster.all_pinned())
            for piece in self._forest.chain(end)
        }
        going = tuple(each for each in ids if each in self._forest and each not in needed)
        await self._indexed(partial(self._index.unstore, going))
        for each in going:
            self._forest.lose(each)
        return going

    async def _remove(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        held = frozenset(self._held.values())

        def work() -> tuple[str, ...]:
            gone = self._index.collect(ids, held)
            self._index.scrub()
            return gone

        gone = await self._indexed(work)
        for each in gone:
            self._forest.remove(each)
        return gone

    async def _retire(self, key: AgentKey, *, overdue: bool) -> tuple[str, ...] | None:
        row = self._roster.find(key)
        if overdue and not self._roster.is_overdue(row):
            return None
        scope = self._roster.scope(row)
        await self._indexed(partial(self._index.delete_agent, key.namespace, key.name))
        self._roster.drop(key)
        self._held.pop(key, None)
        # What it had left behind on other branches is among what nobody reaches.
        lost = await self._indexed(self._index.left)
        return tuple(each for each in lost if self._forest.scope(each) == scope)

    async def _pin(self, key: AgentKey, segment: str, *, pinned: bool) -> None:
        self._roster.find(key)
        if pinned:
            pin = PinRow(key.namespace, key.name, segment, self._now())
            await self._indexed(partial(self._index.pin, pin))
            self._roster.pin(pin)
        else:
            await self._indexed(partial(self._index.unpin, key.namespace, key.name, segment))
            self._roster.unpin(key, segment)

    def _known(self, row: AgentRow | None) -> Known | None:
        if row is None:
            return None
        return Known(self._info(row), self._roster.scope(row), terms(row).frame)

    def _info(self, row: AgentRow) -> AgentInfo:
        held = terms(row)
        return AgentInfo(
            name=row.name,
            system=row.system,
            head=row.head,
            num_tokens=chain_length(self._forest.chain(row.head)),
            created=row.created,
            last_used=row.last_used,
            ttl_s=held.ttl_s,
            overflow=held.overflow,
            share="namespace" if held.salt is None else "none",
        )

    async def _indexed(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
