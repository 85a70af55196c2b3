"""Decoded copies of memories, kept on the device for agents that are likely to speak next."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from concurrent.futures import Executor

import msgspec
from mlx_lm.models.cache import KVCache

from greenroom.runtime.cache import nbytes, reserve
from greenroom.runtime.codec import Payload
from greenroom.runtime.restore import overwrite
from greenroom.runtime.spec import CacheSpec

HEADROOM = 256
"""Tokens that fit behind a resident copy without a reallocation: a question and an answer."""


class Span(msgspec.Struct, frozen=True):
    """The rows ``[first, first + rows)`` of one encoded segment."""

    payload: Payload
    first: int
    rows: int


class Part(msgspec.Struct, frozen=True):
    """The first ``rows`` rows of the segment with the id ``key``, which may not be known yet."""

    key: str
    rows: int


class _Copy:
    """A turn's caches, of which the first ``offset`` rows are as decoding gives them.

    ``pending`` are the segments that follow; their rows are still the floats of the turn.
    ``parts`` are whose rows these are, all of them.
    """

    __slots__ = ("caches", "num_bytes", "parts", "pending")

    def __init__(
        self, caches: list[KVCache], pending: Sequence[Span], parts: Sequence[Part]
    ) -> None:
        self.caches = caches
        self.pending = pending
        self.parts = parts
        self.num_bytes = nbytes(caches)


class ResidentCaches:
    """Caches by handle, least recently made first out, under a byte budget. On the MLX thread.

    A copy holds bit for bit what decoding the segments gives, so that having one changes nothing
    but the time to the first token. It is taken by one turn and put back at that turn's end.
    Branches of one trunk have one copy of it: whoever speaks next takes it, and replaces what it
    holds of another's branch.
    """

    def __init__(self, spec: CacheSpec, budget_bytes: int, pool: Executor | None = None) -> None:
        self._spec = spec
        self._pool = pool
        self._budget_bytes = budget_bytes
        self._copies: OrderedDict[int, _Copy] = OrderedDict()
        self.num_bytes = 0

    @property
    def unsettled(self) -> bool:
        """Whether ``settle`` has anything to do."""
        return any(copy.pending for copy in self._copies.values())

    def put(
        self,
        handle: int,
        caches: list[KVCache],
        length: int,
        pending: Sequence[Span],
        parts: Sequence[Part] = (),
    ) -> None:
        """Keep the caches of a turn: ``length`` rows that were decoded, then the ``pending`` ones.

        Lets go of the oldest copies until all fit.
        """
        for cache in caches:
            cache.offset = length
        self._keep(handle, _Copy(caches, pending, parts))
        self.shrink(self._budget_bytes)

    def name(self, handle: int, keys: Sequence[str]) -> None:
        """The last parts of a copy have these ids; unknown copies are ignored."""
        copy = self._copies.get(handle)
        if copy is not None:
            first = len(copy.parts) - len(keys)
            named = [Part(key, p.rows) for key, p in zip(keys, copy.parts[first:], strict=True)]
            copy.parts = [*copy.parts[:first], *named]

    def discard(self, keys: Collection[str]) -> None:
        """Let go of all copies that hold anything of these segments."""
        for handle, copy in list(self._copies.items()):
            if any(part.key in keys for part in copy.parts):
                self.num_bytes -= self._copies.pop(handle).num_bytes

    def borrow(self, parts: Sequence[Part], spans: Sequence[Span]) -> list[KVCache] | None:
        """A copy that begins with nearly all of what it holds as ``parts`` do, made into theirs.

        ``spans`` are the rows of the parts. None where no copy is worth it: the rows that another
        branch would have to decode again are at most half as many as are saved.
        """
        best, most = None, 0
        for handle, copy in self._copies.items():
            common = _common(copy.parts, parts)
            beyond = sum(part.rows for part in copy.parts) - common
            if common > most and 2 * beyond <= common:
                best, most = handle, common
        caches = self.take(best)
        if caches is None:
            return None
        for cache in caches:
            cache.offset = most
        self._write(_Copy(caches, _after(spans, most), ()))
        return caches

    def take(self, handle: int | None) -> list[KVCache] | None:
        """The caches of ``handle``, which are the caller's now; None if they are gone."""
        copy = self._copies.pop(handle, None) if handle is not None else None
        if copy is None:
            return None
        self.num_bytes -= copy.num_bytes
        self._write(copy)
        return copy.caches

    def settle(self) -> None:
        """Bring one copy into the form in which it is taken, with room behind it."""
        for handle, copy in self._copies.items():
            if copy.pending:
                self.num_bytes -= copy.num_bytes
                self._write(copy, HEADROOM)
                self._copies[handle] = _Copy(copy.caches, (), copy.parts)
                self.num_bytes += self._copies[handle].num_bytes
                break
        self.shrink(self._budget_bytes)

    def limit(self, num_bytes: int) -> None:
        """Set the budget, and let go of the oldest copies until all fit."""
        self._budget_bytes = num_bytes
        self.shrink(num_bytes)

    def size(self, handle: int | None) -> int:
        """Bytes of the copy of ``handle``, 0 if there is none."""
        copy = self._copies.get(handle) if handle is not None else None
        return copy.num_bytes if copy is not None else 0

    def shrink(self, num_bytes: int, spare: int | None = None) -> None:
        """Let go of the oldest copies until all take ``num_bytes`` at most, of ``spare``'s last."""
        if spare is not None and spare in self._copies:
            self._copies.move_to_end(spare)
        while self._copies and self.num_bytes > num_bytes:
            _, copy = self._copies.popitem(last=False)
            self.num_bytes -= copy.num_bytes

    def _keep(self, handle: int, copy: _Copy) -> None:
        self._copies[handle] = copy
        self.num_bytes += copy.num_bytes

    def _write(self, copy: _Copy, headroom: int = 0) -> None:
        """Write the pending rows over the turn's own, in place where there is room."""
        spans = [(span.payload, span.first, span.rows) for span in copy.pending]
        reserve(copy.caches, sum(span.rows for span in copy.pending), headroom)
        overwrite(self._spec, copy.caches, spans, self._pool)


def _common(one: Sequence[Part], two: Sequence[Part]) -> int:
    """How many rows both begin with."""
    rows = 0
    for ours, theirs in zip(one, two, strict=False):
        if not ours.key or ours.key != theirs.key:
            break
        rows += min(ours.rows, theirs.rows)
        if ours.rows != theirs.rows:
            break
    return rows


def _after(spans: Sequence[Span], rows: int) -> list[Span]:
    """The spans without their first ``rows`` rows."""
    left: list[Span] = []
    for span in spans:
        skipped = min(rows, span.rows)
        rows -= skipped
        if skipped < span.rows:
            left.append(Span(span.payload, span.first + skipped, span.rows - skipped))
    return left


def can_be_resident(caches: Sequence[object]) -> bool:
    """Whether these caches can be put together again from rows: all layers attend to everything."""
    return bool(caches) and all(type(cache) is KVCache for cache in caches)
