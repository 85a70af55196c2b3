"""``greenroom agents``: who is here, and what can be done with an agent's memory."""

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from greenroom.actors.commands.command import Commands, add_command
from greenroom.actors.commands.output import console, megabytes, print_json
from greenroom.actors.commands.reach import reach_options, reached
from greenroom.actors.commands.status import Status
from greenroom.runtime.agent_records import AgentInfo, LogEntry

if TYPE_CHECKING:
    from greenroom.actors.sync import SyncRoom

Verb = Callable[["SyncRoom", argparse.Namespace], object]
HEAD_CHARS = 12


def add(commands: Commands) -> None:
    """Add the parsers."""
    reach = reach_options()
    run_list = _running(_list)
    group = add_command(commands, "agents", run_list, "list agents, and tend to them", reach)
    parts = group.add_subparsers(metavar="PART")
    add_command(parts, "list", run_list, "list all agents", reach)
    show = add_command(parts, "show", _running(_show), "show an agent and its memory", reach)
    show.add_argument("name")
    fork = add_command(parts, "fork", _running(_fork), "a new agent with the same memory", reach)
    fork.add_argument("name")
    fork.add_argument("new", help="the new agent's name")
    fork.add_argument("--at", metavar="SEGMENT", help="as it was there, not now")
    export = add_command(parts, "export", _running(_export), "write an agent to a file", reach)
    export.add_argument("name")
    export.add_argument("file")
    taken = add_command(parts, "import", _running(_import), "take an agent in from a file", reach)
    taken.add_argument("file")
    taken.add_argument("--name", help="the name it gets, if not its own")
    forget = add_command(
        parts, "forget", _running(_forget), "erase an agent and what only it remembers", reach
    )
    forget.add_argument("name")


def _running(verb: Verb) -> Callable[[argparse.Namespace], int]:
    """The command that has ``verb`` done in the room that is meant, and prints what it gives."""

    def run(options: argparse.Namespace) -> int:
        with reached(options, dark=True) as room:  # none of it needs the model
            shown = verb(room, options)
        if options.json:
            print_json(shown)
        return Status.DONE

    return run


def _list(room: "SyncRoom", options: argparse.Namespace) -> object:
    agents = room.agents()
    if not options.json:
        table = Table("name", "tokens", "head", "last used", "system", box=None)
        for agent in agents:
            table.add_row(*_row(agent), (agent.system or "").partition("\n")[0][:40])
        console().print(table, markup=False)
    return agents


def _show(room: "SyncRoom", options: argparse.Namespace) -> object:
    agent = room.agent(options.name)
    info, log = agent.info(), agent.log()
    if not options.json:
        print(f"{info.name}: {info.num_tokens} tokens, last used {_when(info.last_used)}")
        if info.system is not None:
            print(f"system: {info.system}")
        console().print(log_table(log), markup=False)
    return {"agent": info, "log": log}


def log_table(log: tuple[LogEntry, ...]) -> Table:
    """An agent's memory as a table, oldest segment first."""
    table = Table("segment", "kind", "tokens", "up to", "MB", "pinned", "to compute anew", box=None)
    for entry in log:
        table.add_row(
            entry.id[:HEAD_CHARS],
            entry.kind,
            str(entry.num_tokens),
            str(entry.end),
            megabytes(entry.num_bytes),
            "pinned" if entry.pinned else "",
            str(entry.recompute_tokens or ""),
        )
    return table


def _fork(room: "SyncRoom", options: argparse.Namespace) -> object:
    info = room.agent(options.name).fork(options.new, at=options.at).info()
    if not options.json:
        print(f"{info.name} remembers {info.num_tokens} tokens")
    return info


def _export(room: "SyncRoom", options: argparse.Namespace) -> object:
    path = room.agent(options.name).export_to(options.file)
    size = path.stat().st_size
    if not options.json:
        print(f"{options.name} is in {path}: {megabytes(size)} MB")
    return {"name": options.name, "path": str(path), "num_bytes": size}


def _import(room: "SyncRoom", options: argparse.Namespace) -> object:
    info = room.import_agent(options.file, name=options.name).info()
    if not options.json:
        print(f"{info.name} is here, with {info.num_tokens} tokens")
    return info


def _forget(room: "SyncRoom", options: argparse.Namespace) -> object:
    erased = room.agent(options.name).forget()
    if not options.json:
        size = megabytes(erased.num_bytes)
        print(f"{options.name} is forgotten: {erased.num_segments} segments, {size} MB")
    return {"name": options.name, "erased": erased}


def _row(agent: AgentInfo) -> tuple[str, str, str, str]:
    head = (agent.head or "")[:HEAD_CHARS]
    return agent.name, str(agent.num_tokens), head, _when(agent.last_used)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
