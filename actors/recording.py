"""A turn as it is told over sockets: recorded while it runs, so that it outlives the one it began
on and can be taken up from any frame."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec

from greenroom.actors.client_frames import Resume, Say
from greenroom.actors.frames import (
    Cancelled,
    Last,
    Token,
    TurnFrame,
    failed,
)
from greenroom.actors.house import House
from greenroom.actors.limits import Turnstile
from greenroom.actors.ongoing import opened
from greenroom.actors.problems import problem
from greenroom.actors.telling import Teller
from greenroom.runtime.errors import Conflict, InvalidRequest, MailboxFull, NotFound

MAX_RECORDINGS = 256
"""Turns that are kept for whoever may come back; the oldest that nobody reads goes first."""
MAX_AHEAD = 256
"""Frames that a recording may be ahead of its reader; the turn itself waits for neither."""


class Recording:
    """One turn's frames, in order; a slow reader finds them all, and holds up nobody.

    An answer is bounded by the context window, and so is what is kept of it. ``cancel`` has no
    effect once the last frame is recorded.
    """

    def __init__(self, house: House, turns: Turnstile, say: Say, request_id: str) -> None:
        self.say = say
        self.followers = 0
        self._house = house
        self._turns = turns
        self._request_id = request_id
        self._frames: list[TurnFrame] = []
        self._read = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._over)

    @property
    def ended(self) -> bool:
        """The last frame is recorded."""
        return bool(self._frames) and isinstance(self._frames[-1], Last)

    @property
    def num_frames(self) -> int:
        """How many are recorded so far."""
        return len(self._frames)

    def cancel(self) -> None:
        """Give the turn up, which frees its slot; its last frame then says so."""
        if not self.ended:
            self._task.cancel()

    def unfollow(self) -> bool:
        """A reader has left; whether it was the last one."""
        self.followers -= 1
        self._room.set()
        return not self.followers

    async def over(self) -> None:
        """Wait until the turn has ended and let go of what it held."""
        await asyncio.wait([self._task])

    async def follow(self, at: int = 0) -> AsyncIterator[TurnFrame]:
        """The frames from number ``at`` on, up to the last one; of a given up turn only that."""
        while True:
            while at < len(self._frames):
                if isinstance(self._frames[-1], Cancelled):
                    at = len(self._frames) - 1
                frame = self._frames[at]
                at += 1
                self._read = max(self._read, at)
                self._room.set()
                yield frame
                if isinstance(frame, Last):
                    return
            self._more.clear()
            await self._more.wait()

    def position(self, resume: Resume) -> int:
        """The number of the first frame that whoever resumes has not seen.

        Raises ``InvalidRequest`` for a place that is not there, or within a frame.
        """
        if resume.after is not None:
            if resume.after >= len(self._frames):
                raise _no_such_place("after", "no frame of that number has been sent")
            return resume.after + 1
        if not resume.index:
            return 0
        seen = 0
        for number, frame in enumerate(self._frames):
            if isinstance(frame, Token) and frame.tokens:
                seen += len(frame.tokens)
                if seen == resume.index:
                    return number + 1
        raise _no_such_place("index", "no frame of the turn ends there")

    def _record(self, *frames: TurnFrame) -> None:
        if frames and not self.ended:
            self._frames += frames
            self._more.set()

    def _over(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            self._record(Cancelled(self.say.id, self.say.agent))

    async def _wait_for_reader(self) -> None:
        while self.followers and len(self._frames) - self._read >= MAX_AHEAD:
            self._room.clear()
            await self._room.wait()

    async def _run(self) -> None:
        say = self.say
        teller = Teller(say.id, say.agent, progress=say.progress)
        try:
            with self._turns.passed():
                await self._play(teller)
        except Exception as error:  # the socket's edge: told to the client, and the socket goes on
            told = problem(error, self._request_id)
            self._record(failed(told, say.id, say.agent))

    async def _play(self, teller: Teller) -> None:
        async with opened(self._house, self.say.turn) as turn:
            self._record(*teller.tell(turn.started))
            async for event in turn.events():
                self._record(*teller.tell(event))
                await self._wait_for_reader()


class RecordingKey(msgspec.Struct, frozen=True):
    """What names a turn: whose it is, and its id."""

    namespace: str
    agent: str
    id: str


class Recordings:
    """The turns that have an id, while they run and for ``keep_s`` seconds after they are left.

    A turn that nobody comes back to within that time is given up.
    """

    def __init__(self, house: House, turns: Turnstile, keep_s: float) -> None:
        self._house = house
        self._turns = turns
        self._keep_s = keep_s
        self._kept: OrderedDict[RecordingKey, Recording] = OrderedDict()
        self._timers: dict[RecordingKey, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, say: Say, request_id: str) -> Recording:
        """Start the turn.

        Raises ``Conflict`` while another of the same agent and id runs, ``MailboxFull`` when as
        many run as are kept.
        """
        key = _key(say)
        if key is None:
            return Recording(self._house, self._turns, say, request_id)
        before = self._kept.get(key)
        if before is not None and not before.ended:
            raise Conflict(
                f"A turn {say.id!r} of {say.agent} runs already: resume it, or choose another id.",
                param="id",
                code="id_in_use",
            )
        self._forget(key)
        self._make_room()
        self._kept[key] = recording = Recording(self._house, self._turns, say, request_id)
        return recording

    def find(self, namespace: str, resume: Resume) -> Recording:
        """The turn to take up again. Raises ``NotFound`` when it is not kept (any more)."""
        recording = self._kept.get(RecordingKey(namespace, resume.agent, resume.id))
        if recording is None:
            raise NotFound(
                f"There is no turn {resume.id!r} of {resume.agent} to resume.",
                param="id",
                code="turn_not_found",
            )
        return recording

    def followed(self, recording: Recording) -> None:
        """Somebody reads it (again)."""
        recording.followers += 1
        if (key := _key(recording.say)) is not None and key in self._timers:
            self._timers.pop(key).cancel()

    def left(self, recording: Recording, *, for_good: bool) -> None:
        """Somebody does not read it any more: it is kept for a while, unless left ``for_good``."""
        if not recording.unfollow():
            return
        key = _key(recording.say)
        if key is None or for_good:
            recording.cancel()
        if key is None or self._kept.get(key) is not recording:
            return
        if for_good:
            self._forget(key)
        else:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(self._keep_s, self._forget, key)

    async def close(self) -> None:
        """Give up what still runs, and wait for that."""
        kept = list(self._kept.values())
        for key in list(self._kept):
            self._forget(key)
        await asyncio.gather(*(recording.over() for recording in kept))

    def _forget(self, key: RecordingKey) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if (recording := self._kept.pop(key, None)) is not None:
            recording.cancel()

    def _make_room(self) -> None:
        if len(self._kept) < MAX_RECORDINGS:
            return
        # Whose reader is here is not given up for somebody else's.
        for key, recording in self._kept.items():
            if recording.ended or not recording.followers:
                self._forget(key)
                return
        raise MailboxFull("the sockets' turns", MAX_RECORDINGS)


def _key(say: Say) -> RecordingKey | None:
    if say.id is None:
        return None
    return RecordingKey(say.turn.namespace, say.agent, say.id)


def _no_such_place(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}.", param=param, code="out_of_range")
