"""What a command is to the parser, and the options that many of them share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from greenroom.runtime.errors import SettingsError
from greenroom.runtime.layers import Effective, load_settings

Run = Callable[[argparse.Namespace], int]
"""A command: takes the parsed options, returns an exit status (``commands.status``)."""

# Shorthands for the keys that are changed most; every key can be set by --set.
_SHORTHANDS = {
    "model": "model.name",
    "device": "model.device",
    "host": "server.host",
    "port": "server.port",
    "home": "home",
}


class Commands(Protocol):
    """Where a command adds its parser: what ``ArgumentParser.add_subparsers`` gives."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    summary: str,
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """A parser for one command; every command takes ``--json``."""
    parser = commands.add_parser(
        name, help=summary, description=summary[:1].upper() + summary[1:] + ".", parents=parents
    )
    # Suppressed: a default here would undo what was given before a sub-command's name.
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, errors too"
    )
    parser.set_defaults(run=run)
    return parser


def settings_options() -> argparse.ArgumentParser:
    """The options that set settings, as a parent parser."""
    # Suppressed, as --json is: a sub-command's default must not undo what was given before it.
    parent = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parent.add_argument_group("settings")
    group.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    group.add_argument("--set", action="append", metavar="KEY=VALUE", help="set any one setting")
    for name, key in _SHORTHANDS.items():
        group.add_argument(f"--{name}", metavar="VALUE", help=f"sets {key}")
    return parent


def effective(options: argparse.Namespace) -> Effective:
    """The settings in force for a command with ``settings_options``. Raises SettingsError."""
    overrides: dict[str, str] = {}
    for item in getattr(options, "set", ()):
        key, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(f"command line: --set takes KEY=VALUE, not {item!r}")
        overrides[key.strip()] = value
    for name, key in _SHORTHANDS.items():
        if (value := getattr(options, name, None)) is not None:
            overrides[key] = value
    return load_settings(config=getattr(options, "config", None), overrides=overrides)
