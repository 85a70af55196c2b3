"""Where a command finds its agents: in this process, or in a server that runs."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import effective, settings_options
from greenroom.runtime.errors import StoreBusy, Unavailable

if TYPE_CHECKING:
    from greenroom.actors.sync import SyncRoom

KEY_VARIABLE = "GREENROOM_API_KEY"


def reach_options() -> argparse.ArgumentParser:
    """The options that say where, as a parent parser."""
    parent = argparse.ArgumentParser(
        add_help=False, argument_default=argparse.SUPPRESS, parents=[settings_options()]
    )
    group = parent.add_argument_group("a running server, instead of a model in this process")
    group.add_argument("--url", help="its address, such as http://localhost:8000")
    group.add_argument("--key", help=f"its API key (else the variable {KEY_VARIABLE})")
    return parent


@contextmanager
def reached(options: argparse.Namespace, *, dark: bool = False) -> Iterator["SyncRoom"]:
    """The room that the options mean; a ``dark`` one of this process has not loaded its model.

    Raises what ``greenroom.open`` and ``connect`` raise.
    """
    with mlx_needed():
        from greenroom.actors.room import connect_room, open_settings
        from greenroom.actors.sync import in_step
    url = getattr(options, "url", None)
    if url is not None:
        key = getattr(options, "key", None) or os.environ.get(KEY_VARIABLE)
        with in_step(lambda: connect_room(url, key=key)) as room:
            yield room
        return
    settings = effective(options).settings
    try:
        with in_step(lambda: open_settings(settings, dark=dark)) as room:
            yield room
    except StoreBusy as error:
        raise Unavailable(f"{error}; or reach its agents with --url") from error
