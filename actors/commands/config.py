"""``greenroom config``: the settings in force and where each came from."""

import argparse

import msgspec
from rich.table import Table

from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.actors.commands.output import console, print_json
from greenroom.actors.commands.status import Status
from greenroom.runtime.layers import flat_settings, variable_of
from greenroom.runtime.settings import SECRETS


def add(commands: Commands) -> None:
    """Add the parser."""
    summary = "print the settings in force and where each came from"
    add_command(commands, "config", _config, summary, settings_options())


def _config(options: argparse.Namespace) -> int:
    given = effective(options)
    rows = {
        key: "***" if key in SECRETS and value else value
        for key, value in flat_settings(given.settings).items()
    }
    if options.json:
        print_json({k: {"value": v, "origin": given.origins[k]} for k, v in rows.items()})
        return Status.DONE
    table = Table("setting", "value", "from", "environment variable", box=None)
    for key, value in rows.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        table.add_row(key, text, given.origins[key], variable_of(key))
    console().print(table, markup=False)
    return Status.DONE
