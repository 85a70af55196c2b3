"""Who is first, and by how much: what the comparison's cells amount to."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.cells import Cell
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import Figure
from benchmarks.scenarios import SCENARIOS, more_is_better

US = "greenroom"
KEEPING = {"written MB": "SIGKILL", "on disk after SIGTERM MB": "SIGTERM"}
"""Bytes are compared with those only whose memory outlives this end of a process."""
SINGLE = 0.05
"""By what share a single measurement may be off, for want of an interval."""


class Standing(msgspec.Struct, frozen=True):
    """One figure of ours beside that of the best other: ``times`` better, if above 1."""

    scenario: str
    name: str
    ours: Figure
    other: str
    theirs: Figure
    times: float

    @property
    def verdict(self) -> str:
        """First, tied within the intervals, or behind."""
        (low, high), (low2, high2) = _bounds(self.ours), _bounds(self.theirs)
        if low <= high2 and low2 <= high:
            return "tied"
        return "first" if self.times > 1 else "**behind**"


def compared(cells: Sequence[Cell], *, mlx: bool) -> Iterator[Standing]:
    """Each figure of ours against the best of the other MLX servers, or of the rest.

    Multiples of a server's own figures are not compared, nor what is written with those who keep
    less.
    """
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        of_it = {cell.contender: cell for cell in cells if cell.scenario == scenario}
        us = of_it.pop(US, None)
        others = {n: cell for n, cell in of_it.items() if CONTENDERS[n].mlx == mlx}
        for name in us.names if us else ():
            ours = us.figure(name) if us else None
            best = _best(name, others)
            if ours is None or best is None or " / " in name:
                continue
            other, theirs = best
            times = theirs.median / ours.median
            times = 1 / times if more_is_better(name) else times
            yield Standing(scenario, name, ours, other, theirs, times)


def _best(name: str, others: Mapping[str, Cell]) -> tuple[str, Figure] | None:
    found = [
        (contender, figure)
        for contender, cell in others.items()
        if (figure := cell.figure(name)) is not None
        and KEEPING.get(name) in (None, *CONTENDERS[contender].survives)
    ]
    if not found:
        return None
    pick = max if more_is_better(name) else min
    return pick(found, key=lambda each: each[1].median)


def _bounds(figure: Figure) -> tuple[float, float]:
    if len(figure.values) > 1:
        return figure.low, figure.high
    return figure.median * (1 - SINGLE), figure.median * (1 + SINGLE)


def standings(cells: Sequence[Cell]) -> str:
    """A Markdown table: greenroom against the best other MLX server, and against llama.cpp."""
    head = ["scenario", "figure", "greenroom", "best other MLX server", "times better", ""]
    head += ["llama.cpp", "times better"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    llama = {(s.scenario, s.name): s for s in compared(cells, mlx=False)}
    mlx = {(s.scenario, s.name): s for s in compared(cells, mlx=True)}
    for key in dict.fromkeys([*mlx, *llama]):
        own, other = mlx.get(key), llama.get(key)
        ours = own.ours if own else llama[key].ours
        row = [*key, str(ours)]
        row += [f"{own.theirs} ({own.other})", f"{own.times:.2f}", own.verdict] if own else [""] * 3
        row += [f"{other.theirs} ({other.other})", f"{other.times:.2f}"] if other else [""] * 2
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def tables(cells: Sequence[Cell]) -> str:
    """A Markdown table a scenario: medians with intervals; the best, and ties with it, in bold."""
    parts = []
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        of_it = [cell for cell in cells if cell.scenario == scenario]
        there = [cell for cell in of_it if cell.measurements]
        names = list(dict.fromkeys(name for cell in there for name in cell.names))
        head = [f"### {scenario}", "", SCENARIOS[scenario].about, ""]
        lines = [f"| | {' | '.join(names)} | times played | cores used by others |"]
        lines.append("| --- " * (len(names) + 3) + "|")
        for cell in there:
            row = [_written(name, cell, there) for name in names]
            loads = [m.others_cores for m in cell.measurements if m.others_cores is not None]
            load = f"{max(loads):.1f}" if loads else "?"
            lines.append(
                f"| {cell.contender} | {' | '.join(row)} | {len(cell.measurements)} | {load} |"
            )
        if not there:
            lines = []
        missing = [f"- {c.contender}: {c.skipped or 'not played'}" for c in of_it
                   if c.skipped or not c.measurements]  # fmt: skip
        if missing:
            lines += ["", "Not measured, or not to the end:", *missing]
        parts.append("\n".join(head + lines))
    return "\n\n".join(parts) + "\n"


def _written(name: str, cell: Cell, there: Sequence[Cell]) -> str:
    own = cell.figure(name)
    if own is None:
        return "-"
    others = [figure for each in there if (figure := each.figure(name)) is not None]
    if more_is_better(name):
        leading = own.high >= max(f.low for f in others)
    else:
        leading = own.low <= min(f.high for f in others)
    return f"**{own}**" if leading else str(own)


def plot_first_tokens(cells: Sequence[Cell], file: Path) -> None:
    """Seconds to the first token over the prompt's length: cold, hot, and after SIGKILL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure_, panels = pyplot.subplots(1, 3, figsize=(13, 4.5), sharey=True)
    for axes, name in zip(panels, ("cold s", "hot s", "after SIGKILL s"), strict=True):
        for contender in dict.fromkeys(cell.contender for cell in cells):
            points = []
            for cell in cells:
                kind, _, length = cell.scenario.partition("-")
                if cell.contender == contender and kind == "ttft" and (f := cell.figure(name)):
                    points.append((int(length), f.median))
            if points:
                width = 2.5 if contender == US else 1.2
                axes.plot(*zip(*sorted(points), strict=True), marker="o", lw=width, label=contender)
        axes.set(xscale="log", yscale="log", xlabel="tokens", title=name.removesuffix(" s"))
        axes.set_xticks([512, 1024, 2048, 4096], ["512", "1024", "2048", "4096"])
        axes.tick_params(axis="x", which="minor", labelbottom=False)
        axes.grid(visible=True, alpha=0.3)
    panels[0].set_ylabel("seconds to the first token")
    panels[0].legend(fontsize=8)
    figure_.tight_layout()
    figure_.savefig(file, dpi=110)


def plot_standings(cells: Sequence[Cell], file: Path) -> None:
    """How many times better than the best other MLX server each figure is, and than llama.cpp."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = (("best other MLX server", True, "tab:blue"), ("llama.cpp", False, "tab:orange"))
    found = {label: list(compared(cells, mlx=mlx)) for label, mlx, _ in kinds}
    rows = list(dict.fromkeys((s.scenario, s.name) for each in found.values() for s in each))
    figure_, axes = pyplot.subplots(figsize=(9, 0.24 * len(rows) + 1.5))
    for label, _, color in kinds:
        y = [rows.index((s.scenario, s.name)) for s in found[label]]
        axes.scatter([s.times for s in found[label]], y, color=color, label=f"than {label}")
    axes.axvline(1, color="black", lw=0.8)
    axes.set(xscale="log", xlabel="times better; left of the line: worse")
    axes.set_yticks(range(len(rows)), [f"{scenario}: {name}" for scenario, name in rows])
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)
    figure_.tight_layout()
    figure_.savefig(file, dpi=110)
