"""What has happened in a scene: entries that are only ever added, and what follows from them. Pure.

Every turn begins with a ``Cue``, which is durable before the member is asked, and ends with exactly
one entry that names it: a ``Line``, a ``Silence``, a ``Call`` or a ``Cast``. A scene that was
interrupted finds its open cues here and puts them again, under the same keys.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Literal

import msgspec

from greenroom.runtime.ballot import Ballot, Tally
from greenroom.runtime.records import Timings, Usage
from greenroom.runtime.scenario import Member, Phase, Scenario, Vote

Purpose = Literal["speak", "call", "vote"]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """``number`` is its place among the scene's entries; ``phase`` counts from 0."""

    number: int
    phase: int


class PhaseBegun(_Entry, frozen=True, tag="phase"):
    """The phase begins."""


class Cue(_Entry, frozen=True, tag="cue"):
    """A member is to speak, to call the next speaker or to vote.

    It knows what lines it is reached by with numbers below ``horizon``; ``text`` is put to it
    besides. What it says reaches ``to`` only, or everybody.
    """

    speaker: str
    horizon: int
    purpose: Purpose = "speak"
    text: str = ""
    to: tuple[str, ...] | None = None
    poll: int | None = None


class Line(_Entry, frozen=True, tag="line"):
    """Something said: by a member (``cue``), by the narrator (``speaker`` None) or by a guest.

    ``to`` None is said to everybody. ``head`` is where the speaker stood then.
    """

    text: str
    speaker: str | None = None
    to: tuple[str, ...] | None = None
    cue: int | None = None
    head: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None


class Silence(_Entry, frozen=True, tag="silence"):
    """A member had its turn and said nothing; ``reason`` is a short stable word."""

    cue: int
    speaker: str
    reason: str


class Call(_Entry, frozen=True, tag="call"):
    """The moderator's answer ``text`` calls ``called``; where it was not ``understood``, whoever
    is next in the circle."""

    cue: int
    called: str
    text: str | None
    understood: bool


class Poll(_Entry, frozen=True, tag="poll"):
    """A vote is held among ``voters``. ``scripted``: it is the phase's own."""

    vote: Vote
    voters: tuple[str, ...]
    scripted: bool = False


class Cast(_Entry, frozen=True, tag="ballot"):
    """A ballot is cast in the poll of that number."""

    cue: int
    poll: int
    ballot: Ballot


class Counted(_Entry, frozen=True, tag="tally"):
    """The poll of that number is over."""

    poll: int
    tally: Tally


class Ended(_Entry, frozen=True, tag="end"):
    """The scene is over: "finished", "max_turns" or "stop_word"."""

    reason: str


Entry = PhaseBegun | Cue | Line | Silence | Call | Poll | Cast | Counted | Ended


def reaches(line: Line, name: str) -> bool:
    """Whether a member hears the line: its own words it knows."""
    return line.speaker != name and (line.to is None or name in line.to)


def said_as(line: Line) -> str | None:
    """Whose words they are for who hears them; None is the narrator speaking to everybody."""
    if line.to is None:
        return line.speaker
    return f"{line.speaker or 'Narrator'} (in a whisper)"


class Transcript:
    """The entries of a scene so far, and what they amount to."""

    def __init__(self, scenario: Scenario, entries: Iterable[Entry] = ()) -> None:
        self.scenario = scenario
        self.entries: list[Entry] = []
        self.lines: list[Line] = []
        self.open_cues: dict[int, Cue] = {}
        self.open_polls: dict[int, Poll] = {}
        self.spoken: list[str] = []  # whose turns to speak are over, in the order of their cues
        self.ended: str | None = None
        self.phase = -1
        self.num_in_phase = 0
        self.called: str | None = None
        self.stopped: str | None = None  # the reach of a stop word that was said: phase or scene
        self.polled = False  # the phase's own vote has begun
        self._horizons: dict[str, int] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Take note of the next entry."""
        if entry.number != len(self.entries):
            raise ValueError(f"entry {entry.number} follows {len(self.entries)} others")
        self.entries.append(entry)
        match entry:
            case PhaseBegun():
                self.phase, self.num_in_phase = entry.phase, 0
                self.called = self.stopped = None
                self.polled = False
            case Cue():
                self.open_cues[entry.number] = entry
            case Line():
                self.lines.append(entry)
                if entry.cue is not None:
                    self._spoke(entry.cue)
                    self._notice_stop_word(entry)
            case Silence():
                self._spoke(entry.cue, delivered=False)
            case Call():
                self._close(entry.cue, delivered=entry.text is not None)
                self.called = entry.called
            case Poll():
                self.open_polls[entry.number] = entry
                self.polled = self.polled or entry.scripted
            case Cast():
                self._close(entry.cue, delivered=entry.ballot.text is not None)
            case Counted():
                del self.open_polls[entry.poll]
            case Ended():
                self.ended = entry.reason

    @property
    def next_number(self) -> int:
        return len(self.entries)

    @property
    def current(self) -> Phase:
        """The phase that has begun last; the first one before that."""
        return self.scenario.script[max(0, self.phase)]

    def speaking(self) -> tuple[str, ...]:
        """Who has a turn to speak now."""
        return tuple(c.speaker for c in self.open_cues.values() if c.purpose == "speak")

    def turns_left(self) -> int | None:
        """How many turns to speak may still begin in this phase; None: no limit."""
        busy = len(self.speaking())
        limits = [
            total - had - busy
            for total, had in (
                (self.scenario.turns(self.current), self.num_in_phase),
                (self.scenario.max_turns, len(self.spoken)),
            )
            if total is not None
        ]
        return max(0, min(limits)) if limits else None

    def unheard(self, member: Member, horizon: int, phase: int, since: int = 0) -> list[Line]:
        """The lines below ``horizon`` that reach a member and that no turn of it has brought it,
        from number ``since`` on."""
        since = max(since, self._horizons.get(member.name, 0))
        begin, end = (bisect_left(self.lines, n, key=_number) for n in (since, horizon))
        return [
            line
            for line in self.lines[begin:end]
            if reaches(line, member.name) and not (member.ephemeral and line.phase != phase)
        ]

    def ballots(self, poll: int) -> list[Ballot]:
        """The ballots cast in a poll so far."""
        return [e.ballot for e in self.entries if isinstance(e, Cast) and e.poll == poll]

    def as_heard_by(self, name: str) -> list[Line]:
        """The lines that a member has said or is reached by."""
        return [line for line in self.lines if line.speaker == name or reaches(line, name)]

    def _spoke(self, number: int, *, delivered: bool = True) -> None:
        cue = self._close(number, delivered=delivered)
        self.spoken.append(cue.speaker)
        self.num_in_phase += 1
        self.called = None

    def _close(self, number: int, *, delivered: bool) -> Cue:
        cue = self.open_cues.pop(number)
        if delivered:
            self._horizons[cue.speaker] = cue.horizon
        return cue

    def _notice_stop_word(self, line: Line) -> None:
        if line.to is not None:
            return
        text = line.text.casefold()
        if any(word.casefold() in text for word in self.scenario.stop_words):
            self.stopped = "scene"
        elif any(word.casefold() in text for word in self.current.stop_words):
            self.stopped = self.stopped or "phase"


def _number(line: Line) -> int:
    return line.number
