"""What the comparison has measured: one file for each scenario of each server."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from benchmarks.figures import Figure, figure


class Measurement(msgspec.Struct, frozen=True):
    """One playing: figures by name, the seconds it took, and the cores others used meanwhile."""

    figures: dict[str, list[float]]
    seconds: float
    others_cores: float | None
    date: str


class Cell(msgspec.Struct):
    """One scenario of one server; ``skipped`` says why there is nothing, or no more."""

    scenario: str
    contender: str
    measurements: list[Measurement] = []
    skipped: str | None = None

    def figure(self, name: str) -> Figure | None:
        """Everything that was measured under a name; None where that is nothing, or 0."""
        every = (value for m in self.measurements for value in m.figures.get(name, []))
        values = [value for value in every if value > 0]
        return figure(values) if values else None

    @property
    def names(self) -> list[str]:
        """Of its figures."""
        return list(dict.fromkeys(n for m in self.measurements for n in m.figures))


class Shelf:
    """The folder that cells are kept in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, scenario: str, contender: str) -> Cell:
        """What has been measured of a cell so far."""
        file = self._file(scenario, contender)
        if file.exists():
            return msgspec.json.decode(file.read_bytes(), type=Cell)
        return Cell(scenario, contender)

    def save(self, cell: Cell) -> None:
        """Write it down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(cell), indent=1)
        self._file(cell.scenario, cell.contender).write_bytes(text + b"\n")

    def all(self, scenarios: Iterable[str], contenders: Sequence[str]) -> list[Cell]:
        """Every cell of these, empty ones too."""
        return [self.load(scenario, name) for scenario in scenarios for name in contenders]

    def _file(self, scenario: str, contender: str) -> Path:
        return self.folder / f"{scenario}--{contender}.json"
