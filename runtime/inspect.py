"""What can be seen of a running system, at any time, from the loop's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from greenroom.runtime.mailbox import MailboxStats

if TYPE_CHECKING:
    from greenroom.runtime.cell import Cell
    from greenroom.runtime.system import System


class ActorInfo(Struct, frozen=True):
    """One actor. ``current`` is the type of the message (or the hook) it is at, for
    ``current_age_s`` seconds; ``cancelled`` counts messages whose sender left."""

    path: str
    state: str
    stopping: bool
    generation: int
    restarts: int
    last_error: str | None
    mailbox: MailboxStats
    cancelled: int
    current: str | None
    current_age_s: float
    age_s: float
    num_children: int
    num_watchers: int


class SystemInfo(Struct, frozen=True):
    """All actors in memory, in order of birth, and what became of the rest.

    ``num_asleep``: passivated ones that somebody still refers to.
    """

    actors: list[ActorInfo]
    num_asleep: int
    dead_letters: dict[str, int]


def actor_info(cell: Cell) -> ActorInfo:
    """A snapshot of one actor."""
    now, current = cell.now(), cell.current
    label = None
    if current is not None:
        message = current.message
        label = message if isinstance(message, str) else type(message).__name__
    return ActorInfo(
        path=cell.path,
        state=cell.state.value,
        stopping=cell.stopping,
        generation=cell.generation,
        restarts=cell.restarts.count if cell.restarts is not None else 0,
        last_error=cell.last_error,
        mailbox=cell.mailbox.stats(now),
        cancelled=cell.cancelled,
        current=label,
        current_age_s=now - current.at if current is not None else 0.0,
        age_s=now - cell.born_at,
        num_children=len(cell.children or ()),
        num_watchers=len(cell.watchers or ()),
    )


def system_info(system: System) -> SystemInfo:
    """A snapshot of the system."""
    return SystemInfo(
        actors=[actor_info(cell) for cell in system.registry.cells()],
        num_asleep=system.registry.num_asleep,
        dead_letters=dict(system.dead_letters.counts.items()),
    )
