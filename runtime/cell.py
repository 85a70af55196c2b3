"""The cell: an actor's identity. It outlives the instances that act in it.

It holds the mailbox, the place in the tree and the state; what runs in it is in ``activation``,
what happens when that fails is in ``recovery``. An idle cell owns no task: the first message
makes one, which leaves when the mailbox is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from greenroom.runtime import activation, recovery
from greenroom.runtime.envelope import Envelope
from greenroom.runtime.errors import ActorStopped, AskTimeout, ChannelCancelled, MailboxFull
from greenroom.runtime.mailbox import Mailbox
from greenroom.runtime.message import Terminated
from greenroom.runtime.ref import Ref
from greenroom.runtime.state import OVER, Reason, State, Verdict
from greenroom.runtime.supervise import RestartLog

if TYPE_CHECKING:
    from greenroom.runtime.actor import Actor, Context
    from greenroom.runtime.clock import Timer
    from greenroom.runtime.deadletters import Why
    from greenroom.runtime.props import Props
    from greenroom.runtime.system import System


class Cell:
    """One actor as the kernel sees it. Everything here runs on the event loop's thread."""

    __slots__ = (
        "__weakref__",
        "actor",
        "after_children",
        "born_at",
        "cancelled",
        "children",
        "context",
        "current",
        "farewells",
        "generation",
        "idle_since",
        "idle_timer",
        "last_error",
        "life_timer",
        "mailbox",
        "name",
        "now",
        "parent",
        "path",
        "predecessor",
        "props",
        "reason",
        "rebirth",
        "restarts",
        "state",
        "stopping",
        "successor",
        "system",
        "task",
        "verdict",
        "watchers",
        "watching",
    )

    def __init__(
        self, system: System, name: str, path: str, props: Props, parent: Cell | None
    ) -> None:
        self.system = system
        self.name = name
        self.path = path
        self.props = props
        self.parent = parent
        self.now = system.now
        self.mailbox = Mailbox(props.mailbox)
        self.state = State.STARTING
        self.stopping = False
        self.reason: Reason | None = None
        self.generation = 0
        self.actor: Actor[Any] | None = None
        self.context: Context[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.current: Envelope | None = None
        self.verdict: Verdict | None = None
        self.restarts: RestartLog | None = None
        self.last_error: str | None = None
        self.cancelled = 0
        self.born_at = self.idle_since = system.now()
        self.children: dict[Cell, None] | None = None
        self.watchers: set[Cell] | None = None
        self.watching: set[Cell] | None = None
        self.farewells: list[asyncio.Future[None]] | None = None
        self.predecessor: Cell | None = None
        self.successor: Cell | None = None
        self.after_children: Callable[[], None] | None = None
        self.idle_timer: Timer | None = None
        self.life_timer: Timer | None = None
        self.rebirth: Timer | None = None

    # -- what arrives

    def post(self, envelope: Envelope) -> None:
        """Queue a message. Raises ActorStopped or MailboxFull."""
        if self.mailbox.closed:
            self._refuse(envelope)
        if not self.mailbox.offer(envelope):
            raise MailboxFull(self.path, self.mailbox.capacity)
        if getattr(envelope.message, "reply", None) is not None:
            self._bind(envelope)
        if self.task is None:
            self.wake()

    def post_or_wait(self, envelope: Envelope) -> bool:
        """``post`` that puts the envelope in line under the ``wait`` policy, and then is False."""
        if self.mailbox.when_full == "reject":
            self.post(envelope)
            return True
        if self.mailbox.closed:
            self._refuse(envelope)
        queued = self.mailbox.offer_or_wait(envelope)
        self._bind(envelope)
        if queued and self.task is None:
            self.wake()
        return queued

    def post_quietly(self, message: object) -> None:
        """``post`` for a sender that cannot be told: what is refused is a dead letter."""
        envelope = Envelope(message, None, self.now())
        try:
            self.post(envelope)
        except MailboxFull:
            self.dead_letter(envelope, "full")
        except ActorStopped:
            pass  # a dead letter already

    def post_to_self(self, message: object) -> None:
        """Queue what the actor arranged for itself, beyond the capacity and while it drains."""
        envelope = Envelope(message, None, self.now())
        if self.state in OVER:
            self.dead_letter(envelope, "stopped")
            return
        self.mailbox.force(envelope)
        self._bind(envelope)
        self.wake()

    def signal(self, message: Terminated) -> None:
        """Queue on the supervision lane."""
        if self.state not in OVER:
            self.mailbox.signal(Envelope(message, None, self.now()))
            self.wake()

    def abandon(self, envelope: Envelope) -> None:
        """Nobody wants this any more: withdraw it, or cancel the handler that is at it."""
        if envelope is self.current:
            if not envelope.abandoned:
                envelope.abandoned = True
                self.cancelled += 1
                self.interrupt()
        elif self.mailbox.remove(envelope):
            self.cancelled += 1
            envelope.fail(ChannelCancelled("the reader has left"))

    def expire(self, envelope: Envelope, timeout_s: float) -> None:
        """An ask has taken too long."""
        if envelope.reply is not None and not envelope.reply.done():
            envelope.reply.set_exception(AskTimeout(self.path, timeout_s))
            self.abandon(envelope)

    def wake(self) -> None:
        """See to it that what has arrived gets handled."""
        if self.task is not None:
            return
        if self.state is State.PASSIVE:
            self.system.registry.rouse(self)
            self.state = State.STARTING
        if self.state is State.RUNNING or self.state is State.STARTING:
            self.system.wakes += 1
            self.task = self.system.loop.create_task(activation.run(self))

    def begin_passivation(self) -> None:
        """Run ``on_stop`` and leave memory; what arrives meanwhile brings it back."""
        self.state = State.PASSIVATING
        self.task = self.system.loop.create_task(activation.run(self))

    # -- what overtakes

    def begin_stop(self, *, drain: bool = True) -> None:
        """Take nothing more; handle what is queued (or drop it), run ``on_stop``, end."""
        if self.stopping or self.state in OVER:
            return
        self.stopping = True
        self.mailbox.closed = True
        if not drain:
            for envelope in self.mailbox.clear():
                self.drop(envelope)
        if self.state in (State.WAITING, State.SUSPENDED, State.PASSIVE):
            recovery.terminate(self, "stopped", None)
        else:
            self.wake()

    def begin_timed_stop(self, deadline_s: float) -> None:
        """A stop that nobody waits for: killed if it takes more than ``deadline_s`` seconds."""
        if self.stopping:
            return
        self.begin_stop()
        if self.state not in OVER:
            self.life_timer = self.system.clock.call_later(deadline_s, self.kill)

    def kill(self) -> None:
        """End now: no draining, no ``on_stop``. A handler that runs is cancelled."""
        if self.state in OVER:
            return
        self.mailbox.closed = True
        if self.task is None:
            recovery.terminate(self, "killed", ActorStopped(self.path, "was killed"))
        else:
            self.sentence(Verdict("kill"))

    def fail(self, error: BaseException) -> None:
        """Crash as if ``handle`` had raised ``error``."""
        if self.task is not None:
            self.sentence(Verdict("fail", error))
        elif self.state in (State.RUNNING, State.STARTING):
            recovery.crashed(self, error, None)

    def sentence(self, verdict: Verdict) -> None:
        """Carry out ``verdict`` as soon as the actor's code lets go, and ask it to let go."""
        if self.verdict is None or verdict.kind == "kill":
            self.verdict = verdict
            self.interrupt()

    def interrupt(self) -> None:
        """Cancel the actor's code if it is suspended in an await; the task itself goes on."""
        if self.current is None or self.task is None:
            return
        if asyncio.current_task() is self.task:
            # Cancelling the task that runs would hit whatever it awaits next, perhaps not this.
            self.system.loop.call_soon(self._interrupt_if, self.current)
        else:
            self.task.cancel()

    def _interrupt_if(self, envelope: Envelope) -> None:
        if self.current is envelope and self.task is not None:
            self.task.cancel()

    # -- family and friends

    def watch(self, target: Cell) -> None:
        """Be told of ``target``'s end."""
        if target.state is State.STOPPED:
            self.signal(Terminated(Ref(target), target.reason or "stopped"))
            return
        target.watchers = target.watchers or set()
        target.watchers.add(self)
        self.watching = self.watching or set()
        self.watching.add(target)

    def unwatch(self, target: Cell) -> None:
        """Not be told of it after all."""
        if self.watching and target in self.watching:
            self.watching.discard(target)
            if target.watchers:
                target.watchers.discard(self)

    def adopt(self, child: Cell) -> None:
        """Be its parent."""
        if self.children is None:
            self.children = {}
        self.children[child] = None

    def disown(self, child: Cell) -> None:
        """It is gone, or asleep."""
        if self.children:
            self.children.pop(child, None)
        self.reap()

    def reap(self) -> None:
        """Go on with what had to wait for the last child."""
        if not self.children and self.after_children is not None:
            proceed, self.after_children = self.after_children, None
            proceed()

    async def ended(self) -> None:
        """Wait until it has stopped."""
        if self.state is State.STOPPED:
            return
        farewell = self.system.loop.create_future()
        self.farewells = self.farewells or []
        self.farewells.append(farewell)
        await farewell

    # -- what comes to nothing

    def drop(self, envelope: Envelope) -> None:
        """It will not be handled: tell its sender, and count it."""
        envelope.fail(ActorStopped(self.path, "stopped before it came to this"))
        self.dead_letter(envelope, "stopped")

    def dead_letter(self, envelope: Envelope, why: Why) -> None:
        """Record a message that had no effect or whose handling failed."""
        self.system.dead_letters.add(self.path, envelope.message, why)

    def _refuse(self, envelope: Envelope) -> None:
        self.dead_letter(envelope, "stopped")
        raise ActorStopped(self.path)

    def _bind(self, envelope: Envelope) -> None:
        channel = envelope.channel
        if channel is not None:
            channel.on_cancel(partial(self.abandon, envelope))
