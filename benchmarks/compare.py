"""Side by side: one neutral OpenAI client, the same prompts and weights, against other servers.

Every cell (a scenario of a server) is one file below ``--out``; what is there already is not
measured again, so an interrupted run goes on. The servers take turns. Each is in a virtual
environment of its own, made below ``--environments``; one that cannot run is left out with its
reason. With each measurement goes how busy other processes kept the machine meanwhile.

With ``--minutes`` nothing is begun that would not end in time, and what is still missing is
measured by the next run. First comes one playing of everything: of greenroom, the others at their
best flags and llama.cpp, what is short first; then of the others at their defaults; then repeats.

    python -m benchmarks.compare [--minutes 35] [--systems greenroom mlx-lm ...]
                                 [--scenarios ttft-1024 ...] [--repeats 3] [--quick]
"""

import argparse
import signal
import sys
import tempfile
import urllib.error
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.cells import Cell, Measurement, Shelf
from benchmarks.chats import Scale
from benchmarks.contenders import CONTENDERS, Running, Unavailable
from benchmarks.figures import RESULTS
from benchmarks.machine import Conditions, Load, conditions
from benchmarks.prose import Prose
from benchmarks.scenarios import SCENARIOS
from benchmarks.serving import Refused
from benchmarks.standings import standings, tables
from benchmarks.weights import Weights, same_weights
from greenroom.runtime.layers import load_settings

TROUBLE = (OSError, Unavailable, Refused, KeyError, ValueError, IndexError)
CHARACTERS = 28_000
"""How far apart in the prose the scenarios' prompts begin."""


class Options(argparse.Namespace):
    """What can be said on the command line."""

    systems: list[str]
    scenarios: list[str]
    repeats: int
    minutes: float
    quick: bool
    out: Path | None
    environments: Path


class Job(msgspec.Struct, frozen=True):
    """Scenarios for one server in one go, for the ``repeat``-th time."""

    repeat: int
    contender: str
    scenarios: tuple[str, ...]


def plan(systems: Sequence[str], scenarios: Sequence[str], repeats: int) -> Iterator[Job]:
    """What is to be measured, in the order of what matters when time is short."""
    chosen = [name for name in SCENARIOS if name in scenarios]
    together = tuple(name for name in chosen if not SCENARIOS[name].apart)
    groups = [together] if together else []
    groups += [(name,) for name in chosen if SCENARIOS[name].apart]
    for repeat in range(repeats):
        for later in (False, True):
            tier = [name for name in systems if CONTENDERS[name].later == later]
            for group in groups:
                for name in tier:
                    yield Job(repeat, name, group)


class Comparison:
    """A run: what it has found so far is on its shelf."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._scale = Scale(options.quick)
        self._load = Load()
        out = options.out or RESULTS / ("quick" if options.quick else "") / "compare"
        self.shelf = Shelf(out)

    def run(self) -> None:
        """Measure what is missing and for what there is time."""
        weights = same_weights(self._environments())
        prose = Prose(weights.folder)
        options = self._options
        for job in plan(options.systems, options.scenarios, options.repeats):
            cells = [self.shelf.load(name, job.contender) for name in job.scenarios]
            missing = [c for c in cells if not c.skipped and len(c.measurements) <= job.repeat]
            if missing and self._in_time(missing):
                self._play(missing, job.repeat, prose, weights)

    def note_conditions(self) -> None:
        """Write down where and when this was, beside what other runs have written there."""
        self.shelf.folder.mkdir(parents=True, exist_ok=True)
        file = self.shelf.folder / "conditions.json"
        earlier: list[Conditions] = []
        if file.exists():
            earlier = msgspec.json.decode(file.read_bytes(), type=list[Conditions])
        text = msgspec.json.encode([*earlier, conditions(self._load)])
        file.write_bytes(msgspec.json.format(text, indent=1) + b"\n")

    def _environments(self) -> Path:
        self._options.environments.mkdir(parents=True, exist_ok=True)
        return self._options.environments

    def _in_time(self, cells: Sequence[Cell]) -> bool:
        """Whether there is time for one more of each of these."""
        if not self._options.minutes:
            return True
        wanted = sum(_expected_s(cell) for cell in cells)
        return self._load.seconds + wanted <= 60 * self._options.minutes

    def _play(self, cells: Sequence[Cell], repeat: int, prose: Prose, weights: Weights) -> None:
        """Add one measurement to each of these cells of one server, which begins with nothing."""
        with tempfile.TemporaryDirectory(prefix="greenroom-compare-") as folder:
            disk = Path(folder)
            (disk / "models").symlink_to(load_settings().settings.models_path)
            contender = CONTENDERS[cells[0].contender]
            server = None
            try:
                server = Running(contender, weights, disk, self._environments())
                server.start()
                for cell in cells:
                    self._measure(cell, repeat, server, prose)
            except Unavailable as reason:  # of the start: what a scenario raises is noted there
                for cell in cells:
                    self._note(cell, str(reason))
            finally:
                if server is not None:
                    server.end(signal.SIGKILL)

    def _measure(self, cell: Cell, repeat: int, server: Running, prose: Prose) -> None:
        load, before = Load(), server.cpu_s()
        prose.turn_to(list(SCENARIOS).index(cell.scenario) * CHARACTERS + 1000 * repeat)
        try:
            if not server.alive():
                server.start()
            found = SCENARIOS[cell.scenario].play(server, prose, self._scale)
        except TROUBLE as error:
            server.end(signal.SIGKILL)
            self._note(cell, f"{type(error).__name__}: {error}{_body(error)}")
            return
        measurement = Measurement(
            figures={name: [float(value) for value in values] for name, values in found.items()},
            seconds=load.seconds,
            others_cores=load.others_cores(server.cpu_s() - before),
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        )
        cell.measurements.append(measurement)
        self._note(cell)

    def _note(self, cell: Cell, skipped: str | None = None) -> None:
        cell.skipped = skipped
        self.shelf.save(cell)
        said = skipped or f"{cell.measurements[-1].seconds:.0f} s"
        passed = f"{self._load.seconds / 60:.1f} min"
        print(f"{passed}  {cell.scenario}, {cell.contender}: {said}", file=sys.stderr, flush=True)


def _expected_s(cell: Cell) -> float:
    """What one more measurement will take: what the last took, or what they take on the whole."""
    if cell.measurements:
        return cell.measurements[-1].seconds
    return SCENARIOS[cell.scenario].seconds


def _body(error: BaseException) -> str:
    """What a server has said beside its status."""
    if isinstance(error, urllib.error.HTTPError):
        return f" {error.read()[:200].decode(errors='replace')}"
    return ""


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--systems", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), metavar="NAME"
    )
    parser.add_argument(
        "--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS), metavar="NAME"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0.0, help="0: until everything is there")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it all work?")
    parser.add_argument("--out", type=Path, help="by default benchmarks/results/compare")
    home = load_settings().settings.home_path
    parser.add_argument("--environments", type=Path, default=home / "peers")
    options = parser.parse_args(namespace=Options())
    if sys.platform != "linux":
        sys.exit("this comparison reads /proc: it runs on Linux")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and no server is left behind
    comparison = Comparison(options)
    try:
        comparison.run()
    finally:
        comparison.note_conditions()
    cells = comparison.shelf.all(options.scenarios, options.systems)
    print(standings(cells))
    print(tables(cells))


if __name__ == "__main__":
    main()
