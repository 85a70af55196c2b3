"""The command ``greenroom``: one parser, one place where errors become exit statuses."""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import shtab

import greenroom
from greenroom.actors.commands import (
    agents,
    bench,
    chat,
    config,
    doctor,
    models,
    serve,
    store,
    version,
)
from greenroom.actors.commands.output import print_error
from greenroom.actors.commands.status import Status, status_of
from greenroom.runtime.errors import GreenroomError

GROUPS: Sequence[ModuleType] = (
    serve,
    chat,
    agents,
    models,
    store,
    bench,
    doctor,
    config,
    version,
)
"""The command groups in the order in which ``--help`` lists them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status, one of ``commands.status.Status``."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except GreenroomError as error:
        status = status_of(error)
        kind = type(error).__name__
        print_error(str(error), kind=kind, status=status, as_json=options.json)
        return status
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left, as `head` does. Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.FAILED


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="greenroom",
        description=greenroom.__doc__,
        epilog="Exit status: 0 done, 1 failed, 2 change something first, 3 not found, "
        "4 busy or not now, 130 interrupted. docs/cli.md has it all.",
    )
    shtab.add_argument_to(
        whole, "--print-completion", help="print the completion script for this shell"
    )
    whole.set_defaults(json=False)
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add(commands)
    return whole
