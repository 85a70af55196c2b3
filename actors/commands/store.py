"""``greenroom store``: look at the memories on disk, check, mend and clear them.

For a store that no server holds; otherwise ``StoreBusy`` says so.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.actors.commands.output import console, megabytes, print_json
from greenroom.actors.commands.status import Status
from greenroom.runtime.errors import NotFound
from greenroom.runtime.settings import Settings

if TYPE_CHECKING:
    from greenroom.runtime.audit import Finding
    from greenroom.runtime.index import Index
    from greenroom.runtime.vault import Vault


def add(commands: Commands) -> None:
    """Add the parsers."""
    settings = settings_options()
    group = add_command(commands, "store", _status, "look after the memories on disk", settings)
    parts = group.add_subparsers(metavar="PART")
    for name, run, summary in (
        ("status", _status, "say what is on disk and what the quota leaves"),
        ("verify", _verify, "read every file and every row, and say what is wrong"),
        ("repair", _repair, "mend what verify finds"),
        ("gc", _gc, "clear what nobody needs"),
    ):
        parser = add_command(parts, name, run, summary, settings)
        if name == "gc":
            parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def _status(options: argparse.Namespace) -> int:
    settings = effective(options).settings
    with _opened(settings) as (index, vault):
        from greenroom.runtime.census import free_bytes, plan

        rows = index.rows()
        memory = settings.memory
        disk_bytes = memory.disk_quota_mb << 20
        planned = plan(rows, frozenset(), vault, disk_bytes, memory.keep_branches_s)
        agents = len(index.list_agents())
    census = planned.count.census
    shown = {
        "path": str(settings.store_path),
        "agents": agents,
        "segments": len(rows.segments),
        "stored_segments": sum(1 for each in census.segments if each.num_bytes),
        "segment_bytes": sum(each.num_bytes for each in census.segments),
        "state_bytes": sum(planned.count.states.values()),
        "stray_files": len(census.strays),
        "stray_bytes": sum(each.num_bytes for each in census.strays),
        "index_bytes": vault.index_bytes(),
        "pinned_segments": len(rows.pins),
        "unreachable_segments": len(planned.count.unreachable),
        "total_bytes": census.num_bytes,
        "quota_bytes": planned.quota,
        "free_bytes": free_bytes(settings.store_path),
    }
    if options.json:
        print_json(shown)
    else:
        _print_table(shown)
    return Status.DONE


def _verify(options: argparse.Namespace) -> int:
    with _opened(effective(options).settings) as (index, vault):
        findings = _looked_through(index, vault, "reading", quiet=options.json)
    _print_findings(findings, as_json=options.json)
    return Status.DONE if all(each.harmless for each in findings) else Status.FAILED


def _repair(options: argparse.Namespace) -> int:
    with _opened(effective(options).settings) as (index, vault):
        from greenroom.runtime.audit import repair

        found = _looked_through(index, vault, "reading", quiet=options.json)
        repair(index, vault, found)
        left = _looked_through(index, vault, "reading again", quiet=options.json)
    if options.json:
        print_json({"found": _plain(found), "left": _plain(left)})
    else:
        mended = [each for each in found if each not in left]
        _print_findings(mended, as_json=False, what="mended")
        _print_findings(left, as_json=False, what="left")
    return Status.DONE if all(each.harmless for each in left) else Status.FAILED


def _gc(options: argparse.Namespace) -> int:
    settings = effective(options).settings
    with _opened(settings) as (index, vault):
        from greenroom.runtime.sweep import sweep

        memory = settings.memory
        swept = sweep(
            index,
            vault,
            memory.disk_quota_mb << 20,
            memory.keep_branches_s,
            dry=options.dry_run,
        )
    if options.json:
        print_json(swept)
    else:
        _print_table(msgspec.structs.asdict(swept))
    return Status.DONE


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple["Index", "Vault"]]:
    """The store, locked. Raises NotFound where there is none, StoreBusy where a server has it."""
    if not (settings.store_path / "index.sqlite").exists():
        raise NotFound(f"there is no store in {settings.store_path}", param="home")
    from greenroom.runtime.index import Index

    with mlx_needed():  # what the codecs write is described in its terms
        from greenroom.runtime.vault import Vault
    index = Index(settings.store_path)
    try:
        yield index, Vault(settings.store_path)
    finally:
        index.close()


def _looked_through(
    index: "Index", vault: "Vault", title: str, *, quiet: bool
) -> tuple["Finding", ...]:
    from greenroom.runtime.audit import verify

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeRemainingColumn(),
    )
    to_whom = Console(file=sys.stderr)
    with Progress(*columns, console=to_whom, transient=True, disable=quiet) as bar:
        task = bar.add_task(title, total=None)
        return verify(
            index, vault, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _plain(findings: tuple["Finding", ...]) -> list[dict[str, object]]:
    return [{**msgspec.structs.asdict(each), "harmless": each.harmless} for each in findings]


def _print_findings(
    findings: "tuple[Finding, ...] | list[Finding]", *, as_json: bool, what: str = "found"
) -> None:
    if as_json:
        print_json({"found": _plain(tuple(findings))})
        return
    if not findings:
        print(f"nothing {what}")
        return
    table = Table(what, "", "", box=None)
    for each in findings:
        mark = " (harmless)" if each.harmless else ""
        table.add_row(each.fault + mark, each.subject, each.detail)
    console().print(table, markup=False)


def _print_table(shown: dict[str, object]) -> None:
    table = Table(box=None, show_header=False)
    for name, value in shown.items():
        is_size = name.endswith("_bytes")
        words = name.removeprefix("num_").replace("_", " ")
        table.add_row(
            words, f"{megabytes(value)} MB" if isinstance(value, int) and is_size else str(value)
        )
    console().print(table, markup=False)
