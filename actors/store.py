"""The store: knows every agent and every segment, and keeps the index in step."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, assert_never

import msgspec

from greenroom.actors.messages import (
    AgentKey,
    Commit,
    Enrol,
    Evict,
    FindAgent,
    Forget,
    LetGo,
    ListAgents,
    Match,
    Reach,
    Recall,
    Remove,
    StoreMessage,
    Survey,
    Unstored,
    Whose,
)
from greenroom.actors.whole import whole
from greenroom.runtime.actor import Actor
from greenroom.runtime.errors import Conflict
from greenroom.runtime.forest import Forest
from greenroom.runtime.index import AgentRow, Contents, Index, PinRow
from greenroom.runtime.mending import Recover, load
from greenroom.runtime.records import AgentInfo
from greenroom.runtime.segments import Piece, chain_length

T = TypeVar("T")


class Store(Actor[StoreMessage]):
    """Answers from memory; what changes is in the index before it is in memory.

    ``index`` is open, and stays so whatever becomes of this actor. ``recover`` finds what the index
    has lost.
    """

    def __init__(
        self, index: Index, fingerprint: str, recover: Recover = lambda segment_id: None
    ) -> None:
        self._index = index
        self._recover = recover
        self._fingerprint = fingerprint
        self._forest = Forest(fingerprint)
        self._agents: dict[AgentKey, AgentRow] = {}
        self._heads: dict[str, AgentKey] = {}
        self._pins: set[PinRow] = set()
        self._evicted: set[str] = set()  # known by what they say, without bytes
        self._held: dict[AgentKey, str] = {}  # where running turns go on from
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="greenroom-index")

    async def on_start(self) -> None:
        """Read the index."""
        contents = await self._indexed(self._load)
        for segment in contents.segments:
            self._forest.add(segment, stored=segment.id not in contents.evicted)
        self._evicted.update(contents.evicted)
        for row in contents.agents:
            self._know(row)
        self._pins.update(contents.pins)

    async def on_stop(self) -> None:
        """Let the thread go; everything has been written."""
        self._thread.shutdown(wait=False)

    def on_crash(self, error: BaseException) -> None:
        """Let the thread go; the index is read again by the next generation."""
        self._thread.shutdown(wait=False)

    async def handle(self, message: StoreMessage) -> object:
        """Answer, and write down what changes."""
        match message:
            case Match(namespace, tokens, holder):
                return self._match(namespace, tokens, holder)
            case LetGo(holder):
                self._held.pop(holder, None)
            case Recall(head):
                return self._forest.chain(head)
            case Whose(namespace, tokens, rendered):
                standing = self._forest.stand(namespace, tokens, rendered)
                return next((self._heads[i] for i in standing if i in self._heads), None)
            case FindAgent(key):
                return self._info(self._agents[key]) if key in self._agents else None
            case ListAgents(namespace):
                rows = [r for k, r in self._agents.items() if k.namespace == namespace]
                return tuple(self._info(r) for r in sorted(rows, key=lambda r: r.name))
            case Enrol(key, system):
                return self._info(await whole(self._enrol(key, system)))
            case Commit():
                await whole(self._commit(message))
            case Forget(segment_id):
                self._forest.lose(segment_id)
                self._evicted.add(segment_id)
            case Survey():
                held = frozenset(self._held.values())
                return Reach(await self._indexed(self._index.rows), held)
            case Evict(ids):
                return await whole(self._evict(ids))
            case Unstored(ids):
                return tuple(i for i in ids if i not in self._forest or i in self._evicted)
            case Remove(ids):
                return await whole(self._remove(ids))
            case _:
                assert_never(message)
        return None

    def _load(self) -> Contents:
        return load(self._index, self._recover)

    async def _enrol(self, key: AgentKey, system: str | None) -> AgentRow:
        row = self._agents.get(key)
        if row is None:
            row = self._new(key, system)
            await self._indexed(partial(self._index.commit, (), row))
            self._know(row)
        elif system is not None and system != row.system:
            raise Conflict(
                f"agent {key.name!r} exists with another system prompt; "
                "choose another name, or spawn it without one",
                param="system",
                code="agent_exists",
            )
        return row

    def _new(self, key: AgentKey, system: str | None) -> AgentRow:
        now = time.time()
        return AgentRow(
            namespace=key.namespace,
            name=key.name,
            head=None,
            system=system,
            fingerprint=self._fingerprint,
            created=now,
            last_used=now,
        )

    def _match(
        self, namespace: str, tokens: tuple[int, ...], holder: AgentKey | None
    ) -> tuple[Piece, ...]:
        found = self._forest.match(namespace, tokens)
        if holder is not None:
            self._held.pop(holder, None)
            if found:
                self._held[holder] = found[-1].segment.id
        return found

    async def _evict(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        needed = {
            piece.segment.id
            for end in (*self._held.values(), *(pin.segment for pin in self._pins))
            for piece in self._forest.chain(end)
        }
        going = tuple(each for each in ids if each in self._forest and each not in needed)
        await self._indexed(partial(self._index.unstore, going))
        for each in going:
            self._forest.lose(each)
        self._evicted.update(going)
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
        self._evicted.difference_update(gone)
        return gone

    async def _commit(self, turn: Commit) -> None:
        row = msgspec.structs.replace(
            self._agents.get(turn.key) or self._new(turn.key, None),
            head=turn.head,
            fingerprint=self._fingerprint,
            last_used=time.time(),
        )
        known = self._agents.get(turn.key)
        used = {known.head if known else None, turn.segments[0].parent if turn.segments else None}
        await self._indexed(partial(self._index.commit, turn.segments, row, used))
        self._evicted.difference_update(segment.id for segment in turn.segments)
        for segment in turn.segments:
            self._forest.add(segment)
        self._know(row)
        self._held.pop(turn.key, None)

    def _know(self, row: AgentRow) -> None:
        key = AgentKey(row.namespace, row.name)
        before = self._agents.get(key)
        if before is not None and before.head is not None and self._heads.get(before.head) == key:
            del self._heads[before.head]
        self._agents[key] = row
        if row.head is not None:
            self._heads[row.head] = key

    def _info(self, row: AgentRow) -> AgentInfo:
        return AgentInfo(
            name=row.name,
            system=row.system,
            head=row.head,
            num_tokens=chain_length(self._forest.chain(row.head)),
            created=row.created,
            last_used=row.last_used,
        )

    async def _indexed(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
