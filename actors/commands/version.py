"""``greenroom version``."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import greenroom
from greenroom.actors.commands.command import Commands, add_command
from greenroom.actors.commands.output import print_json
from greenroom.actors.commands.status import Status


def add(commands: Commands) -> None:
    """Add the parser."""
    add_command(commands, "version", _version, "print the version")


def _version(options: argparse.Namespace) -> int:
    if options.json:
        print_json(
            {
                "greenroom": greenroom.__version__,
                "python": platform.python_version(),
                "mlx": _installed("mlx"),
                "mlx-lm": _installed("mlx-lm"),
                "blas": greenroom.BLAS.library,
            }
        )
    else:
        print(greenroom.__version__)
    return Status.DONE


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
