"""The registry: which actor has which name. One loop, no awaits: every operation is atomic."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from greenroom.runtime.cell import Cell
from greenroom.runtime.errors import ActorStopped, NameTaken
from greenroom.runtime.names import validate_name
from greenroom.runtime.props import STOP_DEADLINE_S
from greenroom.runtime.state import OVER, State

if TYPE_CHECKING:
    from greenroom.runtime.props import Props
    from greenroom.runtime.system import System


class Registry:
    """Cells by path. Passivated ones are remembered only as long as somebody refers to them."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._cells: dict[str, Cell] = {}
        self._asleep: WeakValueDictionary[str, Cell] = WeakValueDictionary()
        self.top: dict[Cell, None] = {}
        self.closed = False

    def __len__(self) -> int:
        return len(self._cells)

    def cells(self) -> list[Cell]:
        """All that are in memory, in order of birth."""
        return list(self._cells.values())

    @property
    def num_asleep(self) -> int:
        """Passivated actors that somebody still refers to."""
        return len(self._asleep)

    def sleepers(self, parent: Cell) -> list[Cell]:
        """The passivated children of ``parent``."""
        return [cell for cell in self._asleep.values() if cell.parent is parent]

    def find(self, path: str) -> Cell | None:
        """The living or sleeping cell of that path."""
        return self._cells.get(path) or self._asleep.get(path)

    def spawn(self, name: str, props: Props, parent: Cell | None) -> Cell:
        """A new cell. Raises InvalidRequest for the name, NameTaken, ActorStopped.

        While its predecessor of the same name is stopping it waits, its mailbox open.
        """
        name = validate_name(name)
        path = name if parent is None else f"{parent.path}/{name}"
        existing = self.find(path)
        if existing is not None and not _leaving(existing):
            raise NameTaken(path)
        return self._create(name, path, props, parent, existing)

    def spawn_or_get(self, name: str, props: Props, parent: Cell | None) -> Cell:
        """The cell of that name, new if need be. NameTaken when it lives with another identity."""
        name = validate_name(name)
        path = name if parent is None else f"{parent.path}/{name}"
        existing = self.find(path)
        if existing is None or _leaving(existing):
            return self._create(name, path, props, parent, existing)
        if existing.props.identity != props.identity:
            raise NameTaken(path, "exists already with another identity")
        return existing

    def release(self, cell: Cell) -> None:
        """It has stopped: its name is free, or its successor's."""
        self._asleep.pop(cell.path, None)
        predecessor, successor = cell.predecessor, cell.successor
        cell.predecessor = cell.successor = None
        if successor is not None:
            successor.predecessor = predecessor
        if predecessor is not None:
            predecessor.successor = successor
        if self._cells.get(cell.path) is cell:
            if predecessor is not None:
                self._cells[cell.path] = predecessor
            else:
                del self._cells[cell.path]
        if cell.parent is not None:
            cell.parent.disown(cell)
        else:
            self.top.pop(cell, None)
        if successor is not None and predecessor is None and successor.state is State.WAITING:
            successor.state = State.STARTING
            successor.wake()

    def put_to_sleep(self, cell: Cell) -> None:
        """It is passive: only those who refer to it keep it."""
        del self._cells[cell.path]
        self._asleep[cell.path] = cell
        if cell.parent is not None:
            cell.parent.disown(cell)
        else:
            self.top.pop(cell, None)

    def rouse(self, cell: Cell) -> None:
        """It is needed again. Nothing to do when it had not been put to sleep yet."""
        if self._asleep.pop(cell.path, None) is not None:
            self._enter(cell)

    def _create(
        self, name: str, path: str, props: Props, parent: Cell | None, old: Cell | None
    ) -> Cell:
        if parent is None and self.closed:
            raise ActorStopped(path, "cannot start: the system is shutting down")
        if parent is not None and parent.state in OVER:
            raise ActorStopped(parent.path)
        cell = Cell(self._system, name, path, props, parent)
        if old is not None:
            cell.predecessor, old.successor = old, cell
            cell.state = State.WAITING
        self._enter(cell)
        cell.wake()
        if props.time_to_live_s is not None:
            cell.life_timer = self._system.clock.call_later(
                props.time_to_live_s, cell.begin_timed_stop, STOP_DEADLINE_S
            )
        return cell

    def _enter(self, cell: Cell) -> None:
        self._cells[cell.path] = cell
        if cell.parent is not None:
            cell.parent.adopt(cell)
        else:
            self.top[cell] = None


def _leaving(cell: Cell) -> bool:
    return cell.stopping or cell.state in OVER
