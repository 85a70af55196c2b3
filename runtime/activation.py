"""An activation: the task that brings an actor to life, empties its mailbox and leaves.

This is the actor loop: the one place besides the edge that catches every exception.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Generator
from functools import partial
from typing import TYPE_CHECKING

from greenroom.runtime import recovery
from greenroom.runtime.actor import Actor, Context
from greenroom.runtime.envelope import Envelope
from greenroom.runtime.state import State

if TYPE_CHECKING:
    from greenroom.runtime.cell import Cell

# Messages handled in a row before the loop may serve others. When an actor has woken up, two rounds
# are left to it and to its asker, then it is one message, and twice as many with every quiet round.
MAX_BURST = 4


async def run(cell: Cell) -> None:
    """Run until there is nothing left to do. ``cell.task`` is this task."""
    try:
        if cell.verdict is not None:
            recovery.settled(cell, None, None)
        elif cell.state is State.PASSIVATING:
            await _passivate(cell)
        else:
            alive = cell.actor is not None or await _start(cell)
            if alive and await _drain(cell) and cell.stopping:
                await _finish(cell)
    except asyncio.CancelledError:
        # Not the kernel's own: somebody tears the loop down.
        recovery.terminate(cell, "killed", None)
    recovery.rest(cell)


async def _start(cell: Cell) -> bool:
    cell.generation += 1
    cell.context = Context(cell)
    try:
        actor = cell.props.factory()
    except Exception as error:
        return recovery.crashed(cell, error, None)
    actor.context = cell.context
    cell.actor = actor
    if type(actor).on_start is not Actor.on_start:
        failure = await _hook(cell, "on_start", actor.on_start())
        if (failure or cell.verdict) and not recovery.settled(cell, failure, None):
            return False
    cell.state = State.RUNNING
    return True


async def _drain(cell: Cell) -> bool:
    """Handle messages until there are none; False when this instance's life is over."""
    system, mailbox, actor, now = cell.system, cell.mailbox, cell.actor, cell.now
    assert actor is not None
    burst = left = 1
    while True:
        if cell.verdict is not None:
            return recovery.settled(cell, None, None)
        if not left:
            wakes = system.wakes
            await _let_others()
            if system.wakes == wakes:
                left = burst = min(2 * burst, MAX_BURST)
            else:
                await _let_others()
                left = burst = 1
            continue
        left -= 1
        envelope = mailbox.take()
        if envelope is None:
            return True
        envelope.at = now()
        cell.current = envelope
        try:
            answer = await actor.handle(envelope.message)
        except (Exception, asyncio.CancelledError) as error:
            cell.current = None
            if not recovery.settled(cell, error, envelope):
                return False
        else:
            cell.current = None
            if envelope.abandoned:
                recovery.forget_cancellation(cell)
            if envelope.reply is not None and not envelope.reply.done():
                if isinstance(answer, asyncio.Future):
                    answer.add_done_callback(partial(recovery.answered, cell, envelope))
                else:
                    envelope.reply.set_result(answer)


@types.coroutine
def _let_others() -> Generator[None, None, None]:
    """``asyncio.sleep(0)`` at three quarters of its price."""
    yield


async def _finish(cell: Cell) -> None:
    """The end of a graceful stop: children first, then ``on_stop``."""
    actor = cell.actor
    assert actor is not None
    error: BaseException | None = None
    if cell.children:
        together = actor.children_stop == "together"
        error = await _hook(cell, "stop children", stop_all(list(cell.children), together))
    if error is None and cell.verdict is None:
        error = await _hook(cell, "on_stop", actor.on_stop())
    if error is None and cell.verdict is None:
        recovery.terminate(cell, "stopped", None)
    elif recovery.settled(cell, error, None):
        recovery.terminate(cell, "failed", error)


async def _passivate(cell: Cell) -> None:
    actor = cell.actor
    assert actor is not None
    error = await _hook(cell, "on_stop", actor.on_stop())
    if error is None and cell.verdict is None:
        recovery.sleep(cell)
    elif recovery.settled(cell, error, None):
        # What it holds could not be persisted: it stays in memory.
        cell.state = State.RUNNING


async def _hook(cell: Cell, name: str, work: Awaitable[None]) -> BaseException | None:
    cell.current = Envelope(name, None, cell.now())
    try:
        await work
    except (Exception, asyncio.CancelledError) as error:
        return error
    finally:
        cell.current = None
    return None


async def stop_all(cells: list[Cell], together: bool) -> None:
    """Stop them gracefully and wait: newest first one by one, or all at once."""
    if together:
        for cell in cells:
            cell.begin_stop()
    for cell in reversed(cells):
        cell.begin_stop()
        await cell.ended()
