"""A scene being performed: cues are put to members, and what they answer is written down.

Written first, then told: a cue is durable before its member is asked, a line before anybody hears
it. Whatever is asked or told carries a key made of the scene and the entry's number, so that a
scene that was interrupted anywhere simply asks and tells again (``ChatMessage.key``).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from greenroom.actors.asking import Asking, Outcome
from greenroom.actors.audience import Audience
from greenroom.actors.earshot import Earshot
from greenroom.actors.interjection import Interjection, line_of
from greenroom.actors.players import Agency, Players
from greenroom.actors.prompter import Prompter
from greenroom.runtime.clock import Clock
from greenroom.runtime.errors import InvalidRequest, Unavailable
from greenroom.runtime.plot import ending, next_entries
from greenroom.runtime.transcript import Cue, Entry, Line, PhaseBegun, Transcript

Write = Callable[[Sequence[Entry]], Awaitable[None]]
"""Makes entries durable, adds them to the transcript and shows them to those who watch."""


class Performance:
    """Performs one scene. It alone writes to the transcript while it runs."""

    def __init__(
        self,
        namespace: str,
        uid: str,
        transcript: Transcript,
        house: Agency,
        write: Write,
        audience: Audience,
        clock: Clock,
    ) -> None:
        self._transcript = transcript
        self._write = write
        self._players = Players(namespace, uid, transcript, house)
        self._prompter = Prompter(self._players, transcript, house, clock)
        self._asking = Asking(self._players, transcript, house, audience, clock, self._prompter)
        self._earshot = Earshot(self._players, transcript, house)
        self._running: dict[asyncio.Task[Outcome], Cue] = {}
        self._told: deque[Interjection] = deque()
        self._news = asyncio.Event()

    def tell(self, told: Interjection) -> None:
        """Have something said as soon as it can be written down."""
        self._told.append(told)
        self._news.set()

    async def run(
        self, budget: int | None, first: Sequence[Entry] = (), poll: int | None = None
    ) -> None:
        """Perform until ``budget`` turns have begun and ended, the ``poll`` is counted, or the end.

        ``first`` are entries that come before anything else. Raises what keeps a member from
        speaking that is not its own fault, and StorageFailed; the scene can go on later.
        """
        await self._players.assemble()
        so_far = self._transcript
        begun = len(so_far.spoken)
        try:
            await self._enter(first)
            for cue in tuple(so_far.open_cues.values()):
                self._start(cue)
            while poll is None or poll in so_far.open_polls or self._running:
                await self._speak_for_others()
                had = len(so_far.spoken) + len(so_far.speaking()) - begun
                left = None if budget is None else max(0, budget - had)
                if entries := next_entries(so_far, left):
                    await self._enter(entries)
                    continue
                await self._earshot.spread()
                if not self._running:
                    break
                await self._proceed()
        finally:
            await self._give_up()

    # -- what is written

    async def _enter(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        await self._write(entries)
        for entry in entries:
            match entry:
                case Cue() if entry.number in self._transcript.open_cues:
                    self._start(entry)
                case PhaseBegun(phase=phase) if phase > 0:
                    await self._players.dismiss(phase - 1)
                case _:
                    pass

    async def _proceed(self) -> None:
        """Wait for the next turn to end, or for something to be said from outside."""
        if not self._over():
            news = asyncio.ensure_future(self._news.wait())
            going_on = [task for task in self._running if not task.done()]
            try:
                await asyncio.wait([*going_on, news], return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        for task in self._over():
            await self._end(self._running.pop(task), task.result())

    def _over(self) -> list["asyncio.Task[Outcome]"]:
        """Turns that have ended and may be told, in the order of their cues.

        Of a broadcast none is told before all have spoken.
        """
        over = [task for task in self._running if task.done()]
        failed = any(task.exception() for task in over)
        if self._transcript.current.order == "broadcast" and not failed:
            cues = [cue for task, cue in self._running.items() if not task.done()]
            if any(cue.purpose == "speak" for cue in cues):
                over = [task for task in over if self._running[task].purpose != "speak"]
        return sorted(over, key=lambda task: self._running[task].number)

    async def _end(self, cue: Cue, outcome: Outcome) -> None:
        done = outcome.done
        entry = ending(self._transcript, cue, done.text if done else None, outcome.reason)
        if done is not None and isinstance(entry, Line):
            entry = msgspec.structs.replace(
                entry, head=done.head, usage=done.usage, timings=done.timings
            )
        await self._enter([entry])

    async def _speak_for_others(self) -> None:
        """Write down what was told from outside."""
        self._news.clear()
        while self._told:
            told = self._told.popleft()
            try:
                line = line_of(self._transcript, told.told)
                await self._enter([line])
            except InvalidRequest as error:
                told.fail(error)
            except BaseException as error:
                told.fail(error)
                raise
            else:
                told.succeed(line)

    def _start(self, cue: Cue) -> None:
        if cue not in self._running.values():
            self._running[asyncio.ensure_future(self._asking.answer(cue))] = cue

    async def _give_up(self) -> None:
        """Nothing runs on; what was being said is asked for again, next time."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await self._prompter.stop()
        for task in self._running:
            if not task.cancelled():
                task.exception()  # one failure is raised already
        for told in self._told:
            told.fail(Unavailable("the scene has stopped; say it again"))
