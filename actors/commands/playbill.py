"""A scene on a terminal: what happens in it, as people want to read it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.rule import Rule
from rich.status import Status
from rich.text import Text

from greenroom.runtime.scenario import Phase
from greenroom.runtime.transcript import (
    Call,
    Cast,
    Cue,
    Ended,
    Entry,
    Line,
    PhaseBegun,
    Silence,
)

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


class Playbill:
    """Prints entries; ``phases`` name the phases where they are known."""

    def __init__(self, names: Sequence[str], out: Console, phases: Sequence[Phase] = ()) -> None:
        self._out = out
        self._phases = phases
        self._colours = dict(zip(names, COLOURS * len(names), strict=False))
        self._speaking: dict[int, str] = {}
        self._status: Status | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Also say who is speaking, where somebody looks on."""
        if not self._out.is_terminal:
            yield
            return
        with self._out.status("") as self._status:
            yield
        self._status = None

    def show(self, entry: Entry) -> None:
        """Print an entry, if it is one that a person wants to read."""
        self._note(entry)
        match entry:
            case PhaseBegun(phase=phase):
                if self._phases or phase > 0:
                    self._out.print(Rule(self._name_of(phase)), markup=False)
            case Line(speaker=None, to=to, text=text):
                self._out.print(Text(_to(to) + text, "italic"))
            case Line(speaker=speaker, to=to, text=text):
                style = f"bold {self._colours.get(str(speaker), 'white')}"
                self._out.print(Text.assemble((f"{speaker}{_to(to)}: ", style), text))
            case Silence(speaker=speaker, reason=reason):
                self._out.print(Text(f"{speaker} says nothing ({reason})", "dim"))
            case Call(called=called, understood=understood):
                told = "" if understood else " (nobody was named)"
                self._out.print(Text(f"  {called} is called{told}", "dim"))
            case Cast(ballot=ballot):
                choice = " > ".join(ballot.ranking) or "no valid choice"
                self._out.print(Text(f"  {ballot.voter} votes: {choice}", "dim"))
            case Ended(reason=reason):
                self._out.print(Text(f"The scene is over ({reason}).", "dim"))
            case _:
                pass

    def _name_of(self, phase: int) -> str:
        named = self._phases[phase].name if phase < len(self._phases) else ""
        return named or f"phase {phase + 1}"

    def _note(self, entry: Entry) -> None:
        match entry:
            case Cue(number=number, speaker=speaker):
                self._speaking[number] = speaker
            case Line(cue=cue) | Silence(cue=cue) | Call(cue=cue) | Cast(cue=cue):
                self._speaking.pop(-1 if cue is None else cue, None)
            case _:
                pass
        if self._status is not None:
            who = " and ".join(dict.fromkeys(self._speaking.values()))
            self._status.update(f"{who} …" if who else "")


def _to(to: tuple[str, ...] | None) -> str:
    return "" if to is None else f" (to {', '.join(to)} only) "
