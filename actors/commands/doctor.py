"""``greenroom doctor``: whether greenroom will run well here, and what to do where it will not."""

import argparse

from rich.table import Table

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.actors.commands.output import console, print_json
from greenroom.actors.commands.status import Status

_MARKS = {"well": "[green]ok[/]", "notice": "[yellow]note[/]", "broken": "[red]broken[/]"}


def add(commands: Commands) -> None:
    """Add the parser."""
    summary = "look at device, memory, model, disk and port, and say what to mend"
    add_command(commands, "doctor", _doctor, summary, settings_options())


def _doctor(options: argparse.Namespace) -> int:
    with mlx_needed():
        from greenroom.actors.checkup import checkup
    findings = checkup(effective(options).settings)
    if options.json:
        print_json(findings)
    else:
        table = Table("", "", "", "what to do", box=None, show_header=False)
        for finding in findings:
            table.add_row(_MARKS[finding.verdict], finding.about, finding.detail, finding.fix or "")
        console().print(table)
    broken = any(finding.verdict == "broken" for finding in findings)
    return Status.FAILED if broken else Status.DONE
