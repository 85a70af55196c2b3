"""``greenroom serve``: the agents over HTTP until a signal."""

import argparse
import sys

import msgspec

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.runtime.garbage import keep, no_collections


def add(commands: Commands) -> None:
    """Add the parser."""
    add_command(commands, "serve", _serve, "serve the agents over HTTP", settings_options())


def _serve(options: argparse.Namespace) -> int:
    given = effective(options).settings
    with mlx_needed(), no_collections():
        from greenroom.actors.app import serve
    keep()
    if options.json:
        given = msgspec.structs.replace(
            given, log=msgspec.structs.replace(given.log, format="json")
        )
        return serve(given, announce=_announce)
    return serve(given)


def _announce(model: str, url: str) -> None:
    """Where the agents are, as one JSON line on standard output; the log is JSON as well."""
    sys.stdout.write(msgspec.json.encode({"model": model, "url": url}).decode() + "\n")
    sys.stdout.flush()
