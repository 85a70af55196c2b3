"""``greenroom scene run FILE``: a scene file, performed in this process."""

import argparse
import asyncio
from pathlib import Path

import msgspec
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.actors.commands.output import console
from greenroom.runtime.errors import InvalidRequest, SettingsError
from greenroom.runtime.scenario import Scenario, read_scenario
from greenroom.runtime.transcript import Cast, Ended, Entry, Line, PhaseBegun, Silence

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def add(commands: Commands) -> None:
    """Add the parsers."""
    parser = commands.add_parser("scene", help="perform scenes: agents that talk to each other")
    parsers = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = add_command(
        parsers,
        "run",
        _run,
        "perform a scene file, from where it was left if it was performed before",
        settings_options(),
    )
    run.add_argument("file", type=Path, metavar="FILE", help="a scene in TOML (docs/scenes.md)")
    run.add_argument("--turns", type=int, metavar="N", help="stop after so many turns")
    run.add_argument("--again", action="store_true", help="forget what was said before, and begin")


def _run(options: argparse.Namespace) -> int:
    scenario = read_file(options.file)
    if scenario.endless and options.turns is None:
        raise InvalidRequest("this scene has no end of its own: give --turns")
    given = effective(options)
    with mlx_needed():
        from greenroom.actors.app import open_house
    show = _show_json if options.json else Stage(scenario, console()).show

    async def perform() -> None:
        async with open_house(given.settings) as house:
            scenes, namespace = house.scenes, house.namespace
            if options.again and scenario.name in [s.name for s in await scenes.list(namespace)]:
                await scenes.delete(namespace, scenario.name)
            await scenes.create(namespace, scenario)
            for entry in await scenes.entries(namespace, scenario.name):
                show(entry)
            async with await scenes.perform(namespace, scenario.name, options.turns) as events:
                async for event in events:
                    if isinstance(event, Entry):
                        show(event)

    asyncio.run(perform())
    return 0


def read_file(path: Path) -> Scenario:
    """A scene file. Raises SettingsError, which names the file and the key."""
    try:
        return read_scenario(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except InvalidRequest as error:
        raise SettingsError(f"{path}: {error}") from None


class Stage:
    """Prints what happens in a scene for people."""

    def __init__(self, scenario: Scenario, out: Console) -> None:
        self._scenario = scenario
        self._out = out
        self._colours = dict(zip(scenario.names, COLOURS * len(scenario.names), strict=False))

    def show(self, entry: Entry) -> None:
        """Print an entry, if it is one that a person wants to read."""
        match entry:
            case PhaseBegun(phase=phase):
                name = self._scenario.script[phase].name or f"phase {phase + 1}"
                self._out.print(Rule(name) if self._scenario.phases else "", markup=False)
            case Line(speaker=None, to=to, text=text):
                self._out.print(Text(_to(to) + text, "italic"))
            case Line(speaker=speaker, to=to, text=text):
                said = Text.assemble(
                    (f"{speaker}{_to(to)}: ", f"bold {self._colours.get(str(speaker), 'white')}"),
                    text,
                )
                self._out.print(said)
            case Silence(speaker=speaker, reason=reason):
                self._out.print(Text(f"{speaker} says nothing ({reason})", "dim"))
            case Cast(ballot=ballot):
                choice = " > ".join(ballot.ranking) or "no valid choice"
                self._out.print(Text(f"  {ballot.voter} votes: {choice}", "dim"))
            case Ended(reason=reason):
                self._out.print(Text(f"The scene is over ({reason}).", "dim"))
            case _:
                pass


def _to(to: tuple[str, ...] | None) -> str:
    return "" if to is None else f" (to {', '.join(to)} only) "


def _show_json(entry: Entry) -> None:
    """One JSON object a line."""
    print(msgspec.json.encode(entry).decode(), flush=True)
