"""Side by side: one neutral OpenAI client, the same prompts and weights, against other servers.

Every cell (a scenario of a contender) is one file below ``--out``; what is there already is not
measured again, so an interrupted run goes on. Contenders take turns within a repeat. Each is in a
virtual environment of its own, made below ``--environments``; one that cannot run is left out with
its reason. With each measurement goes how busy other processes kept the machine meanwhile.

    python -m benchmarks.compare [--systems greenroom mlx-lm ...] [--scenarios ttft-1024 ...]
                                 [--repeats 3] [--out compare] [--table compare.md]
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from benchmarks.contenders import CONTENDERS, Running, Unavailable
from benchmarks.figures import Figure, figure
from benchmarks.prose import Prose, default_model
from benchmarks.scenarios import MORE_IS_BETTER, SCENARIOS
from greenroom.runtime.layers import load_settings

US = "greenroom"


class Measurement(msgspec.Struct, frozen=True):
    """One repeat: figures by name, and the cores that other processes used meanwhile."""

    figures: dict[str, float]
    others_cores: float


class Cell(msgspec.Struct):
    """One scenario of one contender; ``skipped`` says why there is nothing."""

    scenario: str
    contender: str
    measurements: list[Measurement] = []
    skipped: str | None = None


class Options(argparse.Namespace):
    """What can be said on the command line."""

    systems: list[str]
    scenarios: list[str]
    repeats: int
    out: Path
    environments: Path
    table: Path | None


def measure(cell: Cell, prose: Prose, model: Path, environments: Path) -> None:
    """Add one measurement to the cell, from a server that starts with nothing."""
    with tempfile.TemporaryDirectory(prefix="greenroom-compare-") as folder:
        disk = Path(folder)
        (disk / "models").symlink_to(load_settings().settings.models_path)
        try:
            server = Running(CONTENDERS[cell.contender], model, disk, environments)
            server.start()
        except Unavailable as reason:
            cell.skipped = str(reason)
            return
        try:
            before, begun, own = busy_s(), time.perf_counter(), sum(os.times()[:4])
            figures = SCENARIOS[cell.scenario](server, prose)
            spent = server.cpu_s() + sum(os.times()[:4]) - own
            passed = time.perf_counter() - begun
            others = max(0.0, busy_s() - before - spent) / passed
            cell.measurements.append(Measurement(dict(figures), others))
        except (OSError, Unavailable, KeyError, ValueError, IndexError) as error:
            cell.skipped = f"{type(error).__name__}: {error}"
        finally:
            server.end(signal.SIGKILL)


def busy_s() -> float:
    """Seconds that all processors together have worked (Linux)."""
    fields = [int(f) for f in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def table(cells: list[Cell]) -> str:
    """A Markdown table a scenario: medians with intervals, and who is first."""
    parts = []
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        of_it = [cell for cell in cells if cell.scenario == scenario]
        there = [cell for cell in of_it if cell.measurements]
        names = list(dict.fromkeys(n for c in there for n in c.measurements[0].figures))
        lines = [f"### {scenario}", "", f"| | {' | '.join(names)} | other load |"]
        lines.append("| --- |" + " --- |" * (len(names) + 1))
        summed = {c.contender: {n: sum_up(c, n) for n in names} for c in there}
        for cell in there:
            row = [standing(n, summed, cell.contender) for n in names]
            load = max(m.others_cores for m in cell.measurements)
            lines.append(f"| {cell.contender} | {' | '.join(row)} | {load:.1f} |")
        lines += [f"\nNot run: {c.contender} ({c.skipped})" for c in of_it if not c.measurements]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def sum_up(cell: Cell, name: str) -> Figure | None:
    """The figure over its repeats; None where it was not measured or is nothing."""
    values = [m.figures[name] for m in cell.measurements if m.figures.get(name, 0) > 0]
    return figure(values) if values else None


def standing(name: str, summed: dict[str, dict[str, Figure | None]], contender: str) -> str:
    """A figure as it is written down; the best, and what ties with it, in bold."""
    own = summed[contender][name]
    if own is None:
        return "-"
    others = [f for each in summed.values() if (f := each[name]) is not None]
    if name in MORE_IS_BETTER:
        leading = own.high >= max(f.low for f in others)
    else:
        leading = own.low <= min(f.high for f in others)
    return f"**{own}**" if leading else str(own)


def load_cell(file: Path, scenario: str, contender: str) -> Cell:
    """What has been measured of a cell so far."""
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Cell)
    return Cell(scenario, contender)


def run(options: Options) -> list[Cell]:
    """Measure what is missing, repeat by repeat, contender by contender."""
    model = default_model()
    prose = Prose(model)
    options.out.mkdir(parents=True, exist_ok=True)
    cells = {
        (scenario, name): load_cell(options.out / f"{scenario}--{name}.json", scenario, name)
        for scenario in options.scenarios
        for name in options.systems
    }
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=options.repeats * len(cells))
        for repeat in range(options.repeats):
            for (scenario, name), cell in cells.items():
                progress.update(bar, description=f"{scenario}, {name}")
                if cell.skipped is None and len(cell.measurements) <= repeat:
                    measure(cell, prose, model, options.environments)
                    file = options.out / f"{scenario}--{name}.json"
                    file.write_bytes(msgspec.json.format(msgspec.json.encode(cell)))
                progress.advance(bar)
    return list(cells.values())


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    here = [n for n in CONTENDERS if n != "llama.cpp" or shutil.which("llama-server")]
    parser.add_argument("--systems", nargs="+", choices=list(CONTENDERS), default=here)
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("compare"))
    home = load_settings().settings.home_path
    parser.add_argument("--environments", type=Path, default=home / "peers")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args(namespace=Options())
    if sys.platform != "linux":
        sys.exit("this comparison reads /proc: it runs on Linux")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and no server is left behind
    text = table(run(options))
    print(text)
    if options.table:
        options.table.write_text(text)


if __name__ == "__main__":
    main()
