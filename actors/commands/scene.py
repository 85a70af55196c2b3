"""``greenroom scene``: scene files performed, and what was said in scenes."""

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table

from greenroom.actors.commands.command import Commands, add_command
from greenroom.actors.commands.output import console, print_json
from greenroom.actors.commands.playbill import Playbill
from greenroom.actors.commands.reach import reach_options, reached
from greenroom.actors.commands.status import Status
from greenroom.runtime.errors import Conflict, InvalidRequest, NotFound, SettingsError
from greenroom.runtime.scenario import Scenario
from greenroom.runtime.scene_file import read_scenario
from greenroom.runtime.transcript import Entry

if TYPE_CHECKING:
    from greenroom.actors.sync import SyncRoom

Verb = Callable[["SyncRoom", argparse.Namespace], object]


def add(commands: Commands) -> None:
    """Add the parsers."""
    reach = reach_options()
    parser = commands.add_parser("scene", help="perform scenes: agents that talk to each other")
    parts = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "perform a scene file, from where it was left if it was performed before"
    run = add_command(parts, "run", _run, summary, reach)
    run.add_argument("file", type=Path, metavar="FILE", help="a scene in TOML (docs/scenes.md)")
    run.add_argument("--turns", type=_count, metavar="N", help="stop after so many turns")
    run.add_argument(
        "--again",
        action="store_true",
        help="begin anew: forget what was said, and the agents that only the scene has",
    )
    add_command(parts, "list", _running(_list), "list all scenes, and where they stand", reach)
    show = add_command(parts, "show", _running(_show), "print what was said in a scene", reach)
    show.add_argument("name")
    show.add_argument("--heard-by", metavar="MEMBER", help="only what this member said or heard")
    delete = add_command(
        parts, "delete", _running(_delete), "forget what was said in a scene", reach
    )
    delete.add_argument("name")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _run(options: argparse.Namespace) -> int:
    scenario = read_file(options.file)
    if scenario.endless and options.turns is None:
        raise InvalidRequest(
            f"{options.file}: this scene has no end of its own: give --turns, or max_turns in it"
        )
    with reached(options) as room:
        if options.again:
            _forget(room, scenario)
        try:
            scene = room.scene(scenario)
        except Conflict as error:
            raise Conflict(
                f"{options.file}: a scene {scenario.name!r} was performed from another file, or "
                "before this one was changed: --again begins anew, another name keeps both"
            ) from error
        before = scene.entries()
        playbill = Playbill(scenario.names, console(), scenario.phases)
        show = _print_line if options.json else playbill.show
        with contextlib.nullcontext() if options.json else playbill.live():
            try:
                for entry in before:
                    show(entry)
                for event in scene.stream(options.turns):
                    if isinstance(event, Entry):
                        show(event)
            except KeyboardInterrupt:
                print("stopped: the same command goes on from here", file=sys.stderr)
                raise
    return Status.DONE


def read_file(path: Path) -> Scenario:
    """A scene file. Raises SettingsError, which names the file and the key."""
    try:
        return read_scenario(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text ({error.reason})") from None
    except InvalidRequest as error:
        raise SettingsError(f"{path}: {error}") from None


def _forget(room: "SyncRoom", scenario: Scenario) -> None:
    """What was said, and the agents that are named by the scene and so are nobody else's."""
    with contextlib.suppress(NotFound):
        room.scene(scenario.name).delete()
    for member in scenario.members:
        if member.agent != f"{scenario.name}.{member.name}":
            continue
        phases = range(1, len(scenario.script) + 1)
        for name in [f"{member.agent}~{n}" for n in phases] if member.ephemeral else [member.agent]:
            with contextlib.suppress(NotFound):
                room.agent(name).forget()


def _running(verb: Verb) -> Callable[[argparse.Namespace], int]:
    """The command that has ``verb`` done in the room that is meant, and prints what it gives."""

    def run(options: argparse.Namespace) -> int:
        with reached(options) as room:
            shown = verb(room, options)
        if options.json:
            print_json(shown)
        return Status.DONE

    return run


def _list(room: "SyncRoom", options: argparse.Namespace) -> object:
    scenes = room.scenes()
    if not options.json:
        table = Table("name", "members", "turns", "phase", "stands", box=None)
        for scene in scenes:
            stands = scene.ended or ("is being performed" if scene.performing else "rests")
            members = ", ".join(scene.members)
            table.add_row(scene.name, members, str(scene.turns), scene.phase or "", stands)
        console().print(table, markup=False)
    return scenes


def _show(room: "SyncRoom", options: argparse.Namespace) -> object:
    scene = room.scene(options.name)
    entries = scene.entries()
    names = scene.info().members
    if options.heard_by is None:
        shown: tuple[Entry, ...] = entries
    elif options.heard_by in names:
        shown = tuple(scene.transcript(heard_by=options.heard_by))
    else:
        raise InvalidRequest(f"{options.heard_by!r} is not a member: there are {', '.join(names)}")
    if not options.json:
        playbill = Playbill(names, console())
        for entry in shown:
            playbill.show(entry)
    return shown


def _delete(room: "SyncRoom", options: argparse.Namespace) -> object:
    room.scene(options.name).delete()
    if not options.json:
        print(f"{options.name} is forgotten; its members keep their memories")
    return {"name": options.name}


def _print_line(entry: Entry) -> None:
    """One JSON object a line, as it comes."""
    print(msgspec.json.encode(entry).decode(), flush=True)
