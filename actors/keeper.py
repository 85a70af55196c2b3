"""The keeper: has the encoded bytes of segments ready, and makes them durable."""

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import assert_never

from greenroom.actors.keeper_messages import (
    Doom,
    Drop,
    DropStates,
    Fetch,
    Fetched,
    Held,
    Keep,
    KeeperMessage,
    Outline,
    Settle,
    Shed,
    Warm,
    Weigh,
)
from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.codec import BadPayload, Payload, check, is_passing, link
from greenroom.runtime.errors import ActorStopped, StorageFailed
from greenroom.runtime.hot import HotPayloads
from greenroom.runtime.resume import Link
from greenroom.runtime.segment_file import Damaged, Missing, VaultError
from greenroom.runtime.segments import Segment
from greenroom.runtime.spec import CacheSpec
from greenroom.runtime.vault import Vault


class Keeper(Actor[KeeperMessage]):
    """Hot bytes in memory, everything on disk; files are written on ``pool`` and read on
    ``readers``, so that a slow disk holds up no turn but those that need what is on it.

    ``changed`` is told how many bytes are hot, and how many are being written and are not hot yet,
    whenever that may be other than before; ``wrote`` how many bytes a turn has added to the disk,
    None where that had no room; ``gone`` whose bytes there are no more: what is computed anew may
    have others, so that no decoded copy of them may stay.
    """

    def __init__(
        self,
        vault: Vault,
        spec: CacheSpec,
        budget_bytes: int,
        pool: Executor,
        readers: Executor | None = None,
        changed: Callable[[int, int], object] = lambda hot, pending: None,
        wrote: Callable[[int | None], object] = lambda num_bytes: None,
        gone: Callable[[tuple[str, ...]], object] = lambda ids: None,
    ) -> None:
        self._vault = vault
        self._spec = spec
        self._hot = HotPayloads(budget_bytes)
        self._pool = pool
        self._readers = readers or pool
        self._changed = changed
        self._wrote = wrote
        self._gone = gone
        self._reads: dict[str, asyncio.Future[Payload]] = {}
        self._unsettled = Counter[str]()  # kept so often and not committed yet
        self._doomed: set[str] = set()  # and not kept by anybody since then

    async def handle(self, message: KeeperMessage) -> object:
        """Answer with bytes, or once bytes are safe."""
        match message:
            case Fetch(ids, reply):
                self.context.background(self._serve(ids, reply))
            case Warm(ids):
                self.context.background(self._warm(ids))
            case Keep(segments):
                pending = sum(payload.num_bytes for _, payload in segments)
                self._changed(self._hot.num_bytes, pending)
                try:
                    return await self._keep(segments)
                finally:
                    self._changed(self._hot.num_bytes, 0)
            case Shed(num_bytes):
                self._hot.shed(num_bytes)
                self._changed(self._hot.num_bytes, 0)
            case Weigh():
                return Held(len(self._hot), self._hot.num_bytes, self._hot.evicted)
            case Outline(ids):
                return await self._outline(ids)
            case Settle(ids):
                self._unsettled -= Counter(ids)
            case Doom(ids):
                self._doomed.update(each for each in ids if each not in self._unsettled)
            case DropStates(ids):
                for each in ids:
                    self._hot.drop(each)
                self._changed(self._hot.num_bytes, 0)
                return await self._delete(self._vault.drop_states, ids)
            case Drop(ids):
                freed = await self._drop(ids)
                self._changed(self._hot.num_bytes, 0)
                return freed
            case _:
                assert_never(message)
        return None

    async def _serve(self, ids: tuple[str, ...], reply: Channel[Fetched]) -> None:
        fetched: Fetched | None = None
        try:
            fetched = await self._fetch(ids)
            self._changed(self._hot.num_bytes, 0)
        finally:
            if fetched is None:  # this generation is over
                reply.fail(ActorStopped(self.context.self_ref.path, "has stopped while it read"))
            elif not reply.closed:
                reply.send_nowait(fetched)
                reply.close()

    async def _drop(self, ids: tuple[str, ...]) -> int:
        doomed = [each for each in ids if each in self._doomed]
        self._doomed.difference_update(ids)
        for each in doomed:
            self._hot.drop(each)
        if doomed:
            self._gone(tuple(doomed))
        return await self._delete(self._vault.purge, doomed)

    async def _delete(self, work: Callable[[Sequence[str]], int], ids: Sequence[str]) -> int:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, work, ids)
        except OSError as error:
            raise StorageFailed(f"files of memories cannot be deleted: {error}") from error

    async def _outline(self, ids: tuple[str, ...]) -> tuple[Link | None, ...]:
        loop = asyncio.get_running_loop()
        found = [loop.run_in_executor(self._pool, self._held, i) for i in ids]
        return tuple(await asyncio.gather(*found))

    def _held(self, segment_id: str) -> Link | None:
        """Blocking. Only a file's beginning is read: what is damaged further on shows later."""
        try:
            payload = self._hot.peek(segment_id) or self._vault.outline(segment_id)
            return link(self._spec, payload, payload.num_tokens)
        except (VaultError, BadPayload):
            return None

    async def _fetch(self, ids: tuple[str, ...]) -> Fetched:
        # What is hot now is held on to: it may be let go of while the others are read.
        hot = {i: payload for i in ids if (payload := self._hot.get(i)) is not None}
        cold = [i for i in ids if i not in hot]
        found = await asyncio.gather(*map(self._reading, cold), return_exceptions=True)
        read: dict[str, Payload] = {}
        bad: set[str] = set()
        for segment_id, outcome in zip(cold, found, strict=True):
            if isinstance(outcome, (VaultError, BadPayload)):
                self.context.log.warning("segment %s is lost: %s", segment_id, outcome)
                if isinstance(outcome, (Missing, Damaged)):  # any other file stays as it is
                    self._gone((segment_id,))
                if isinstance(outcome, Damaged):
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._pool, self._vault.quarantine, segment_id)
                bad.add(segment_id)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                read[segment_id] = outcome
        return self._good(ids, hot, read, bad)

    async def _warm(self, ids: tuple[str, ...]) -> None:
        """Whoever fetches what cannot be read will hear of it."""
        cold = [i for i in ids if self._hot.peek(i) is None]
        found = await asyncio.gather(*map(self._reading, cold), return_exceptions=True)
        for segment_id, outcome in zip(cold, found, strict=True):
            if isinstance(outcome, Payload):
                self._hot.put(segment_id, outcome)
        self._changed(self._hot.num_bytes, 0)

    def _reading(self, segment_id: str) -> "asyncio.Future[Payload]":
        """The segment's one read, however many wait for it."""
        read = self._reads.get(segment_id)
        if read is None:
            loop = asyncio.get_running_loop()
            read = loop.run_in_executor(self._readers, self._read, segment_id)
            self._reads[segment_id] = read
            read.add_done_callback(lambda _: self._reads.pop(segment_id, None))
        return asyncio.shield(read)

    def _read(self, segment_id: str) -> Payload:
        """Blocking. A payload of other shapes or types (another device's floats) is no use here."""
        _, payload = self._vault.read(segment_id)
        check(self._spec, payload)
        return payload

    def _good(
        self,
        ids: tuple[str, ...],
        hot: dict[str, Payload],
        read: dict[str, Payload],
        bad: set[str],
    ) -> Fetched:
        payloads: list[Payload] = []
        for segment_id in ids:
            if segment_id in bad:
                return Fetched(tuple(payloads), segment_id)
            payloads.append(read.get(segment_id) or hot[segment_id])
        for segment_id, payload in read.items():
            self._hot.put(segment_id, payload)
        return Fetched(tuple(payloads), None)

    async def _keep(self, segments: tuple[tuple[Segment, Payload], ...]) -> bool:
        loop = asyncio.get_running_loop()
        ids = {segment.id for segment, _ in segments}
        self._unsettled.update(ids)
        self._doomed -= ids
        writes = [
            loop.run_in_executor(self._pool, self._vault.write, segment, payload)
            for segment, payload in segments
        ]
        try:
            written = await asyncio.gather(*writes)
        except StorageFailed as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOSPC:
                self._wrote(None)
            raise
        for (segment, payload), is_new in zip(segments, written, strict=True):
            if is_new:
                self._hot.put(segment.id, payload)
            elif any(map(is_passing, payload.arrays)):
                self._hot.drop(segment.id)  # it may have been without them, and has them again
            # Else the file is somebody's earlier computation of the same tokens: those bytes stay
            # the segment's, hot and after a restart, and are read when they are needed.
        new = [p.num_bytes for (_, p), is_new in zip(segments, written, strict=True) if is_new]
        self._wrote(sum(new))
        return all(written)
