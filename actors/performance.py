"""A scene being performed: cues are put to members, and what they answer is written down.

Written first, then told: a cue is durable before its member is asked, a line before anybody hears
it. Whatever is asked or told carries a key made of the scene and the entry's number, so that a
scene that was interrupted anywhere simply asks and tells again (``ChatMessage.key``).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from greenroom.actors.audience import Audience
from greenroom.actors.house import House
from greenroom.actors.ongoing import opened
from greenroom.actors.prompter import Prompter
from greenroom.actors.scene_messages import Interrupted, Speaking, Tell, Token
from greenroom.runtime.clock import Clock
from greenroom.runtime.errors import (
    ActorFailed,
    GreenroomError,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from greenroom.runtime.plot import ending, listeners, next_entries, who_is_next
from greenroom.runtime.records import (
    ChatMessage,
    HearRequest,
    Sampling,
    SpawnRequest,
    TextDelta,
    TurnDone,
    TurnRequest,
)
from greenroom.runtime.scenario import Member
from greenroom.runtime.transcript import Cue, Entry, Line, PhaseBegun, Transcript, said_as

RETRY_AFTER_S = (0.2, 1.0, 3.0, 8.0)
"""How long a turn that failed waits before it is taken again, each time; then it is given up."""
Write = Callable[[Sequence[Entry]], Awaitable[None]]
"""Makes entries durable, adds them to the transcript and shows them to those who watch."""


class _Outcome(msgspec.Struct, frozen=True):
    """How a cue ended: with an answer, or for a ``reason`` without one."""

    done: TurnDone | None
    reason: str = ""


class Told(msgspec.Struct, frozen=True):
    """Something that is to be said from outside while a scene is performed."""

    what: Tell
    line: "asyncio.Future[Line]"

    def succeed(self, line: Line) -> None:
        """It has been said, unless nobody waits for that any more."""
        if not self.line.done():
            self.line.set_result(line)

    def fail(self, error: BaseException) -> None:
        """It could not be said."""
        if self.line.done():
            return
        if isinstance(error, asyncio.CancelledError):
            error = Unavailable("the scene has stopped; say it again")
        self.line.set_exception(error)


class Performance:
    """Performs one scene. It alone writes to the transcript while it runs."""

    def __init__(
        self,
        namespace: str,
        uid: str,
        transcript: Transcript,
        house: House,
        write: Write,
        audience: Audience,
        clock: Clock,
    ) -> None:
        self._namespace = namespace
        self._uid = uid
        self._transcript = transcript
        self._house = house
        self._write = write
        self._audience = audience
        self._clock = clock
        self._running: dict[asyncio.Task[_Outcome], Cue] = {}
        self._heard: dict[str, int] = {}  # up to where each agent has been told what was said
        self._prompter = Prompter(namespace, house, clock)
        self._told: deque[Told] = deque()
        self._news = asyncio.Event()

    def tell(self, told: Told) -> None:
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
        await self._assemble()
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
                await self._spread()
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
                    await self._dismiss(phase - 1)
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

    def _over(self) -> list["asyncio.Task[_Outcome]"]:
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

    async def _end(self, cue: Cue, outcome: _Outcome) -> None:
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
                line = line_of(self._transcript, told.what)
                await self._enter([line])
            except InvalidRequest as error:
                told.fail(error)
            except BaseException as error:
                told.fail(error)
                raise
            else:
                told.succeed(line)

    # -- who is asked and told

    async def _assemble(self) -> None:
        for member in self._transcript.scenario.members:
            await self._house.spawn(
                SpawnRequest(
                    namespace=self._namespace, name=self._agent(member), system=member.system
                )
            )

    async def _dismiss(self, phase: int) -> None:
        """Forget the ephemeral members' memory of a phase that is over."""
        for member in self._transcript.scenario.members:
            if member.ephemeral:
                with contextlib.suppress(NotFound):
                    await self._house.forget(self._namespace, agent_of(member, phase))
                await self._house.spawn(
                    SpawnRequest(
                        namespace=self._namespace, name=self._agent(member), system=member.system
                    )
                )

    async def _spread(self) -> None:
        """Let members who are not speaking hear what is new to them, whoever is next first.

        It only saves time: their next turn brings what they have not heard by then.
        """
        so_far = self._transcript
        busy = {cue.speaker for cue in so_far.open_cues.values()}
        following = who_is_next(so_far)
        members = sorted(so_far.scenario.members, key=lambda each: each.name != following)
        for member in members:
            if member.name in busy:
                continue
            agent = self._agent(member)
            lines = so_far.unheard(member, so_far.next_number, so_far.phase)
            for line in lines:
                if line.number < self._heard.get(agent, 0):
                    continue
                with contextlib.suppress(GreenroomError):
                    await self._house.hear(self._hearing(agent, line))
            self._heard[agent] = so_far.next_number

    def _hearing(self, agent: str, line: Line) -> HearRequest:
        return HearRequest(
            agent=agent,
            content=line.text,
            name=said_as(line),
            namespace=self._namespace,
            key=self._key(line.number),
        )

    def _start(self, cue: Cue) -> None:
        if cue not in self._running.values():
            member = self._transcript.scenario.member(cue.speaker)
            self._prompter.leave(agent_of(member, cue.phase))
            self._running[asyncio.ensure_future(self._turn(cue))] = cue

    async def _turn(self, cue: Cue) -> _Outcome:
        """Ask the member until it has answered, or cannot."""
        request = self._request(cue)
        for wait_s in (*RETRY_AFTER_S, None):
            try:
                return _Outcome(await self._ask(cue, request))
            except InvalidRequest as error:
                return _Outcome(None, error.code or "refused")
            except GreenroomError as error:
                if wait_s is None and isinstance(error, ActorFailed):
                    return await self._recall(cue, request)
                if wait_s is None:
                    raise
                reason = type(error).__name__
            self._audience.put(Interrupted(cue=cue.number, speaker=cue.speaker, reason=reason))
            await self._clock.sleep(wait_s)
        raise AssertionError("unreachable")

    async def _recall(self, cue: Cue, request: TurnRequest) -> _Outcome:
        """What a member that keeps crashing has answered all the same, if it has: it may have
        crashed once it was remembered. Until that is known the cue stays open."""
        repeat = msgspec.structs.replace(request, messages=())
        for wait_s in RETRY_AFTER_S:
            try:
                return _Outcome(await self._ask(cue, repeat))
            except NotFound:
                return _Outcome(None, "failed")
            except GreenroomError:
                await self._clock.sleep(wait_s)
        return _Outcome(await self._ask(cue, repeat))

    async def _ask(self, cue: Cue, request: TurnRequest) -> TurnDone:
        said = ""
        async with opened(self._house, request) as turn:
            started = turn.started
            self._audience.put(
                Speaking(
                    cue=cue.number,
                    speaker=cue.speaker,
                    prompt_tokens=started.prompt_tokens,
                    cached_tokens=started.cached_tokens,
                )
            )
            async for event in turn:
                match event:
                    case TextDelta(text=text) if text:
                        self._audience.put(Token(cue=cue.number, speaker=cue.speaker, text=text))
                        said += text
                        self._prompt(cue, said)
                    case TurnDone():
                        return event
                    case _:  # a token whose character is not complete yet
                        pass
        raise AssertionError("a turn that has no end raises")

    def _prompt(self, cue: Cue, said: str) -> None:
        scenario = self._transcript.scenario
        hearing = [scenario.member(name) for name in listeners(self._transcript, cue)]
        self._prompter.prompt(cue, said, [agent_of(member, cue.phase) for member in hearing])

    def _request(self, cue: Cue) -> TurnRequest:
        so_far = self._transcript
        scenario = so_far.scenario
        member = scenario.member(cue.speaker)
        told = [
            ChatMessage("user", line.text, said_as(line), heard=True, key=self._key(line.number))
            for line in so_far.unheard(member, cue.horizon, cue.phase)
        ]
        if cue.text or not told:
            told.append(ChatMessage("user", cue.text or "Go on."))
        phase = scenario.script[cue.phase]
        return TurnRequest(
            messages=tuple(told),
            mode="say",
            agent=agent_of(member, cue.phase),
            namespace=self._namespace,
            max_tokens=member.max_tokens or phase.max_tokens or scenario.max_tokens,
            # Small models like to go on with what the others might say.
            stop=tuple(f"\n{name}:" for name in scenario.names),
            sampling=Sampling(
                temperature=scenario.temperature,
                seed=None if scenario.seed is None else scenario.seed + cue.number,
            ),
            key=self._key(cue.number),
        )

    # --

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

    def _agent(self, member: Member) -> str:
        return agent_of(member, max(0, self._transcript.phase))

    def _key(self, number: int) -> str:
        return f"{self._uid}.{number}"


def agent_of(member: Member, phase: int) -> str:
    """The agent who plays a member: in each phase another one, if it is ephemeral."""
    assert member.agent is not None
    return f"{member.agent}~{phase + 1}" if member.ephemeral else member.agent


def line_of(transcript: Transcript, told: Tell) -> Line:
    """What is told from outside, as the next line. Raises InvalidRequest."""
    scenario = transcript.scenario
    text = told.text.strip()
    if not text:
        raise InvalidRequest("there is nothing to say", param="text", code="empty_string")
    if told.speaker in scenario.names:
        raise InvalidRequest(
            f"{told.speaker} is a member and speaks for itself", param="speaker", code="is_member"
        )
    for name in told.to or ():
        scenario.member(name)
    return Line(
        number=transcript.next_number,
        phase=max(0, transcript.phase),
        text=text,
        speaker=told.speaker,
        to=told.to,
    )
