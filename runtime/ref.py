"""References: the only way to reach an actor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from greenroom.runtime.envelope import Envelope

if TYPE_CHECKING:
    from greenroom.runtime.cell import Cell
    from greenroom.runtime.message import Request

M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")


class Ref(Generic[M_contra]):
    """Where to send an ``M``. It survives the actor's restarts and passivation.

    Equal when they name the same actor; on the wire it is the actor's path (see ``wire``).
    """

    __slots__ = ("_cell",)

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    @property
    def name(self) -> str:
        """The name it was spawned with."""
        return self._cell.name

    @property
    def path(self) -> str:
        """The names from the top-level actor down, joined by ``/``."""
        return self._cell.path

    @property
    def cell(self) -> Cell:
        """The kernel's own view of the actor; not for users."""
        return self._cell

    def tell(self, message: M_contra) -> None:
        """Send and forget: delivered at most once, in order per sender.

        Raises MailboxFull (also under the ``wait`` policy: this cannot wait) or ActorStopped.
        """
        cell = self._cell
        cell.post(Envelope(message, None, cell.now()))

    async def send(self, message: M_contra) -> None:
        """``tell`` that, under the ``wait`` policy, waits for room. Same errors."""
        cell = self._cell
        envelope = Envelope(message, None, cell.now())
        if cell.post_or_wait(envelope):
            return
        admitted = envelope.admitted = cell.system.loop.create_future()
        try:
            await admitted
        except asyncio.CancelledError:
            cell.mailbox.remove(envelope)
            raise

    async def ask(self, request: Request[R], timeout: float | None = None) -> R:
        """Send and wait for the answer, ``timeout`` seconds at most.

        Leaving early (timeout, cancellation) cancels the work: a queued request is withdrawn, a
        running handler is cancelled. Raises MailboxFull, ActorStopped, AskTimeout, ActorFailed
        when the handler crashed, or the handler's own error when that is a GreenroomError.
        """
        cell = self._cell
        if cell.current is not None and asyncio.current_task() is cell.task:
            raise RuntimeError(f"{cell.path} asks itself and would wait for ever")
        reply: asyncio.Future[R] = cell.system.loop.create_future()
        envelope = Envelope(request, reply, cell.now())
        cell.post_or_wait(envelope)
        if timeout is None:
            try:
                return await reply
            except asyncio.CancelledError:
                cell.abandon(envelope)
                raise
        timer = cell.system.clock.call_later(timeout, cell.expire, envelope, timeout)
        try:
            return await reply
        except asyncio.CancelledError:
            cell.abandon(envelope)
            raise
        finally:
            timer.cancel()

    def tell_threadsafe(self, message: M_contra) -> None:
        """``tell`` from any thread, in order. A full mailbox or a dead actor makes a dead letter.

        Raises ActorStopped when the event loop has gone.
        """
        self._cell.system.submit(self._cell.post_quietly, message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other._cell is self._cell

    def __hash__(self) -> int:
        return hash(id(self._cell))

    def __repr__(self) -> str:
        return f"Ref({self.path!r})"
