"""What follows when an actor's code lets go other than by returning: verdicts, crashes, the end.

All of it is synchronous, so nothing comes between a failure and what is decided about it: this is
how supervision overtakes messages.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from greenroom.runtime.actor import LOGGER
from greenroom.runtime.errors import ActorFailed, ActorStopped, ChannelCancelled, GreenroomError
from greenroom.runtime.message import Terminated
from greenroom.runtime.ref import Ref
from greenroom.runtime.state import OVER, Reason, State, Verdict
from greenroom.runtime.supervise import Decision, RestartLog

if TYPE_CHECKING:
    from greenroom.runtime.cell import Cell
    from greenroom.runtime.envelope import Envelope

# Loops round timers to their clock's resolution, uvloop to a millisecond, so that one may ring
# this early; setting it again for less than the clock can tell apart might never end.
TIMER_SLACK_S = 0.001


def settled(cell: Cell, error: BaseException | None, envelope: Envelope | None) -> bool:
    """Settle how the actor's code ended; True when the same instance goes on.

    ``error`` is what it raised, ``envelope`` the message it was at.
    """
    if cell.verdict is not None:
        verdict, cell.verdict = cell.verdict, None
        forget_cancellation(cell)
        return _carry_out(cell, verdict, envelope)
    if error is None:
        return True
    abandoned = envelope is not None and envelope.abandoned
    if isinstance(error, asyncio.CancelledError):
        if cell.task is not None and cell.task.cancelling() > int(abandoned):
            # Not the kernel's own (which cancels once): somebody tears the loop down.
            if envelope is not None:
                cell.drop(envelope)
            terminate(cell, "killed", error)
            return False
        if abandoned and envelope is not None:
            forget_cancellation(cell)
            # The asker has left, unless it was the reader of the reply channel who did.
            envelope.fail(ChannelCancelled("the reader has left"))
            return True
    elif abandoned:
        forget_cancellation(cell)
    return crashed(cell, error, envelope)


def answered(cell: Cell, envelope: Envelope, answer: asyncio.Future[Any]) -> None:
    """An answer that came later: the actor has handled other messages meanwhile, or is no more."""
    if answer.cancelled():
        envelope.fail(ActorFailed(cell.path, cell.last_error or "stopped"))
    elif (error := answer.exception()) is not None:
        envelope.fail(_as_failure(cell, error))
    elif envelope.reply is not None and not envelope.reply.done():
        envelope.reply.set_result(answer.result())


def crashed(cell: Cell, error: BaseException, envelope: Envelope | None) -> bool:
    """The actor failed: decide and act; True when the same instance goes on."""
    cell.last_error = type(error).__name__
    decision = cell.props.supervision.decide(error)
    failure = _as_failure(cell, error)
    heard = envelope is not None and envelope.fail(failure)
    if decision is Decision.RESUME and cell.state is not State.STARTING:
        if envelope is not None and not heard:
            cell.dead_letter(envelope, "failed")
        return True
    if envelope is not None:
        cell.dead_letter(envelope, "failed")
    where = {"actor": cell.path, "generation": cell.generation, "decision": decision.value}
    LOGGER.error("%s failed: %s", cell.path, cell.last_error, extra=where)
    LOGGER.debug("traceback of %s", cell.path, exc_info=error, extra=where)
    if cell.stopping:
        terminate(cell, "failed", error)
        return False
    delay = 0.0
    if decision in (Decision.RESTART, Decision.RESUME):
        allowed = _log_restart(cell)
        decision = Decision.RESTART if allowed is not None else cell.props.supervision.exhausted
        delay = allowed or 0.0
    _apply(cell, decision, error, delay)
    return False


def terminate(cell: Cell, reason: Reason, error: BaseException | None) -> None:
    """Begin the end: drop what is queued, kill the children; the rest follows them."""
    if cell.state in OVER:
        return
    retire(cell, error if reason != "stopped" else None)
    cell.state = State.ENDING
    cell.reason = reason
    cell.mailbox.closed = True
    for timer in (cell.idle_timer, cell.life_timer, cell.rebirth):
        if timer is not None:
            timer.cancel()
    for envelope in cell.mailbox.clear():
        cell.drop(envelope)
    cell.after_children = partial(_bury, cell)
    _kill_children(cell)


def retire(cell: Cell, error: BaseException | None) -> None:
    """Give up the instance; ``error`` when it does not go in peace."""
    actor, context = cell.actor, cell.context
    cell.actor = cell.context = None
    if context is not None:
        context.end()
    if actor is not None and error is not None:
        try:
            actor.on_crash(error)
        except Exception:
            LOGGER.exception("on_crash of %s failed", cell.path, extra={"actor": cell.path})


def sleep(cell: Cell) -> None:
    """The instance leaves memory; the next message brings the actor back."""
    retire(cell, None)
    cell.state = State.PASSIVE
    if cell.stopping and not cell.mailbox:
        terminate(cell, "stopped", None)
    elif not cell.mailbox:
        cell.system.registry.put_to_sleep(cell)


def rest(cell: Cell) -> None:
    """The activation is over: look whether another is due, else watch for idleness."""
    cell.task = None
    after = cell.props.passivate_after_s
    if cell.state is State.RUNNING and not (cell.mailbox or cell.stopping):
        if after is not None:
            cell.idle_since = cell.now()
            if cell.idle_timer is None:
                cell.idle_timer = cell.system.clock.call_later(after, _look_idle, cell, after)
    elif cell.state is not State.PASSIVE or cell.mailbox:
        cell.wake()


def forget_cancellation(cell: Cell) -> None:
    """The kernel's own cancellation has done its work; the task goes on as if new."""
    task = cell.task
    while task is not None and task.cancelling():
        task.uncancel()


def _carry_out(cell: Cell, verdict: Verdict, envelope: Envelope | None) -> bool:
    error = verdict.error or ActorStopped(cell.path, "was killed")
    if verdict.kind == "fail":
        return crashed(cell, error, envelope)
    if envelope is not None:
        envelope.fail(error if verdict.kind == "kill" else _as_failure(cell, error))
        cell.dead_letter(envelope, "killed" if verdict.kind == "kill" else "failed")
    if verdict.kind == "kill":
        terminate(cell, "killed", error)
    elif verdict.kind == "stop" or cell.stopping:
        terminate(cell, "failed", error)
    else:
        _restart(cell, error, verdict.delay_s)
    return False


def _apply(cell: Cell, decision: Decision, error: BaseException, delay_s: float) -> None:
    supervision = cell.props.supervision
    family = cell.parent.children if cell.parent is not None else cell.system.registry.top
    group = [cell]
    if supervision.scope == "all" and decision is not Decision.ESCALATE:
        asleep = (State.WAITING, State.PASSIVE, *OVER)
        group += [
            sibling
            for sibling in family or ()
            if sibling is not cell
            and sibling.props.supervision is supervision
            and sibling.state not in asleep
        ]
    for member in group:
        if decision is Decision.RESTART:
            if member is not cell:
                _log_restart(member)
            if member is cell or member.task is None:
                _restart(member, error, delay_s)
            else:
                member.sentence(Verdict("restart", error, delay_s))
        elif member is cell or member.task is None:
            terminate(member, "failed", error)
        else:
            member.sentence(Verdict("stop", error))
    if decision is Decision.ESCALATE:
        if cell.parent is not None:
            cell.parent.fail(error)
        else:
            cell.system.escalate(cell.path, error)


def _log_restart(cell: Cell) -> float | None:
    cell.restarts = cell.restarts or RestartLog()
    return cell.restarts.next_delay(cell.props.supervision, cell.now(), cell.system.spread())


def _restart(cell: Cell, error: BaseException, delay_s: float) -> None:
    """A new generation after the backoff; the children belong to the old one."""
    if cell.stopping:
        terminate(cell, "failed", error)
        return
    retire(cell, error)
    cell.state = State.SUSPENDED
    if cell.rebirth is not None:
        cell.rebirth.cancel()
    cell.after_children = partial(_await_rebirth, cell, delay_s)
    _kill_children(cell)


def _await_rebirth(cell: Cell, delay_s: float) -> None:
    cell.rebirth = cell.system.clock.call_later(delay_s, _reborn, cell)


def _reborn(cell: Cell) -> None:
    cell.rebirth = None
    if cell.state is State.SUSPENDED:
        cell.state = State.STARTING
        cell.wake()


def _kill_children(cell: Cell) -> None:
    if cell.children is not None:
        for child in list(cell.children):
            child.kill()
        for child in cell.system.registry.sleepers(cell):
            terminate(child, "stopped", None)
    cell.reap()


def _bury(cell: Cell) -> None:
    """The last act, once the children are gone."""
    cell.state = State.STOPPED
    for target in list(cell.watching or ()):
        cell.unwatch(target)
    watchers, cell.watchers = cell.watchers, None
    for watcher in watchers or ():
        if watcher.watching:
            watcher.watching.discard(cell)
        watcher.signal(Terminated(Ref(cell), cell.reason or "stopped"))
    for farewell in cell.farewells or ():
        if not farewell.done():
            farewell.set_result(None)
    cell.farewells = None
    cell.system.registry.release(cell)


def _look_idle(cell: Cell, after_s: float) -> None:
    cell.idle_timer = None
    if cell.state is not State.RUNNING or cell.task is not None:
        return  # the next rest sets the timer again
    left = after_s - (cell.now() - cell.idle_since)
    # One that ever had children stays: asleep, it could not answer for them.
    busy = cell.children is not None or (cell.context is not None and cell.context.busy)
    early = left > TIMER_SLACK_S
    if busy or early:
        wait = left if early else after_s
        cell.idle_timer = cell.system.clock.call_later(wait, _look_idle, cell, after_s)
        return
    cell.begin_passivation()


def _as_failure(cell: Cell, error: BaseException) -> BaseException:
    """What the asker gets: typed errors as they are, anything else wrapped."""
    if isinstance(error, GreenroomError):
        return error
    failure = ActorFailed(cell.path, type(error).__name__)
    failure.__cause__ = error
    return failure
