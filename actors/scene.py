"""A scene: members who talk to each other, and the transcript of what they have said."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, assert_never

from greenroom.actors.audience import Audience
from greenroom.actors.interjection import Interjection, line_of
from greenroom.actors.performance import Performance
from greenroom.actors.players import Agency
from greenroom.actors.scene_messages import (
    HoldVote,
    Look,
    Perform,
    Read,
    SceneEvent,
    SceneInfo,
    SceneMessage,
    Tell,
    Watch,
)
from greenroom.actors.scribe import Scribe
from greenroom.runtime.actor import Actor
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import (
    ActorFailed,
    ActorStopped,
    Conflict,
    GreenroomError,
    InvalidRequest,
)
from greenroom.runtime.ledger import SceneRow
from greenroom.runtime.plot import cue_for, hold
from greenroom.runtime.scene_file import checked_vote
from greenroom.runtime.transcript import Entry, Line, Transcript

Work = Callable[[], Coroutine[Any, Any, None]]


class SceneActor(Actor[SceneMessage]):
    """Performs one scene at a time, beside its mailbox, for whoever asks; others may watch.

    A crash reverts it to what is in the ledger, since that is what it starts from.
    """

    def __init__(self, row: SceneRow, scribe: Scribe, house: Agency) -> None:
        self._row = row
        self._scribe = scribe
        self._house = house
        self._audience = Audience()
        self._performance: Performance | None = None
        self._performer: Channel[SceneEvent] | None = None
        self._rests = asyncio.Event()

    async def on_start(self) -> None:
        """Read what has happened."""
        entries = await self._scribe.read(self._row.uid)
        self._transcript = Transcript(self._row.scenario, entries)

    async def on_stop(self) -> None:
        """Whoever performs it learns that it is not over; nobody can watch any more."""
        if self._performer is not None:
            await self._audience.leave(self._performer, ActorStopped(self.context.self_ref.path))
        self._audience.close()

    def on_crash(self, error: BaseException) -> None:
        """Whoever performs it learns why it stopped; those who watch see the end of it."""
        if self._performer is not None:
            self._performer.fail(ActorFailed(self.context.self_ref.path, type(error).__name__))
        self._audience.close()

    async def handle(self, message: SceneMessage) -> object:
        """Begin what takes long beside the mailbox, and answer the rest."""
        if self._performer is not None and self._performer.cancelled:
            await self._rests.wait()  # what was stopped is about to end
        match message:
            case Perform(reply, turns, speaker):
                self._begin(reply, lambda: self._perform(reply, turns, speaker))
            case HoldVote(reply):
                self._begin(reply, lambda: self._vote(message))
            case Tell():
                return await self._tell(message)
            case Watch(reply):
                self._audience.join(reply)
                self.context.background(self._audience.gone())  # it stays awake for those
            case Look():
                return self._info()
            case Read():
                return tuple(self._transcript.entries)
            case _:
                assert_never(message)
        return None

    # -- performing

    def _begin(self, reply: Channel[SceneEvent], work: Work) -> None:
        if self._performance is not None:
            error = Conflict(
                f"scene {self._row.name!r} is being performed; watch it, or wait until it rests",
                param="scene",
                code="performing",
            )
            reply.fail(error)
            return
        self._performance = Performance(
            self._row.namespace,
            self._row.uid,
            self._transcript,
            self._house,
            self._write,
            self._audience,
            self.context.system.clock,
        )
        self._performer = reply
        self._rests.clear()
        self._audience.join(reply)
        self.context.background(self._see_through(reply, work))

    async def _see_through(self, reply: Channel[SceneEvent], work: Work) -> None:
        """What goes wrong is told to whoever asked; a defect is this actor's crash besides."""
        task = asyncio.current_task()
        assert task is not None
        reply.on_cancel(task.cancel)
        try:
            await work()
        except GreenroomError as error:
            await self._audience.leave(reply, error)
        except asyncio.CancelledError:
            reply.fail(ActorStopped(self.context.self_ref.path))
            raise
        except BaseException as error:
            reply.fail(ActorFailed(self.context.self_ref.path, type(error).__name__))
            raise
        finally:
            self._performance = self._performer = None
            self._rests.set()
        await self._audience.leave(reply)

    async def _perform(
        self, reply: Channel[SceneEvent], turns: int | None, speaker: str | None
    ) -> None:
        assert self._performance is not None
        so_far = self._transcript
        if turns is None and speaker is None and so_far.scenario.endless:
            raise InvalidRequest(
                "this scene has no end of its own: say for how many turns", param="turns"
            )
        first: Sequence[Entry] = ()
        if speaker is not None:
            turns = 1 if turns is None else turns
            if speaker not in so_far.speaking():
                first = cue_for(so_far, speaker)
        await self._performance.run(turns, first)

    async def _vote(self, message: HoldVote) -> None:
        assert self._performance is not None
        vote = checked_vote(message.vote, self._row.scenario.names)
        same = (p for p in self._transcript.open_polls.values() if p.vote == vote)
        poll = next(same, None)  # interrupted before: it goes on
        first: Sequence[Entry] = ()
        if poll is None:
            poll = hold(self._transcript, vote)
            first = (poll,)
        await self._performance.run(0, first, poll.number)

    # -- saying

    async def _tell(self, told: Tell) -> Line:
        """While it is performed only the performance writes, so that no number is used twice."""
        if self._performance is not None:
            waiting = Interjection(told, asyncio.get_running_loop().create_future())
            self._performance.tell(waiting)
            return await waiting.line
        line = line_of(self._transcript, told)
        await self._write([line])
        return line

    async def _write(self, entries: Sequence[Entry]) -> None:
        """Durable first; then they are part of the scene, also where nobody waits any more."""
        writing = asyncio.ensure_future(self._scribe.append(self._row.uid, entries))
        writing.add_done_callback(lambda done: self._written(done, entries))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # whoever writes next must know what is there
            raise

    def _written(self, done: "asyncio.Future[None]", entries: Sequence[Entry]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        for entry in entries:
            self._transcript.add(entry)
            self._audience.put(entry)

    def _info(self) -> SceneInfo:
        so_far = self._transcript
        phase = None if so_far.phase < 0 else so_far.current.name or str(so_far.phase + 1)
        return SceneInfo(
            name=self._row.name,
            members=self._row.scenario.names,
            phase=phase,
            turns=len(so_far.spoken),
            lines=len(so_far.lines),
            speaking=so_far.speaking() if self._performance else (),
            performing=self._performance is not None,
            ended=so_far.ended,
            created=self._row.created,
        )
