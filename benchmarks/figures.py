"""What repeats amount to: a median with a 95 % interval, and how it is written down."""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import ROOT, Load, conditions

RESULTS = ROOT / "benchmarks" / "results"
"""Where ``benchmarks.results`` looks for what the others have written."""
_SINCE_IMPORT = Load()

# Student's t for 95 %, two-sided, by degrees of freedom from 1 on.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


class Figure(msgspec.Struct, frozen=True):
    """The median of ``values`` (positive, in order of measurement) and its 95 % interval.

    The interval is Student's over logarithms: times and their ratios err by factors. One value
    has no interval: ``low`` and ``high`` are that value.
    """

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


def figure(values: Sequence[float]) -> Figure:
    """Sum up repeats; at least one, all above 0."""
    median = statistics.median(values)
    if len(values) == 1:
        return Figure(median, median, median, tuple(values))
    logs = [math.log(value) for value in values]
    t = _T95[min(len(values) - 1, len(_T95)) - 1]
    half = t * statistics.stdev(logs) / math.sqrt(len(values))
    mean = statistics.fmean(logs)
    return Figure(median, math.exp(mean - half), math.exp(mean + half), tuple(values))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def frontier(points: Mapping[str, Sequence[float]]) -> set[str]:
    """The names of the points that no other is at least as low as in everything, and lower in
    something."""

    def beaten(name: str) -> bool:
        mine = points[name]
        return any(
            all(o <= m for o, m in zip(other, mine, strict=True)) and tuple(other) != tuple(mine)
            for other in points.values()
        )

    return {name for name in points if not beaten(name)}


def add_outputs(parser: argparse.ArgumentParser, name: str, *, plot: bool = False) -> None:
    """The options ``--json [FILE]`` and ``--plot [FILE]``; without FILE they write to RESULTS."""
    for kind, suffix in (("json", "json"), ("plot", "png")):
        if kind == "json" or plot:
            parser.add_argument(
                f"--{kind}",
                type=Path,
                nargs="?",
                const=RESULTS / f"{name}.{suffix}",
                metavar="FILE",
                help=f"write it; without FILE to benchmarks/results/{name}.{suffix}",
            )


def write_json(file: Path | None, result: Any) -> None:
    """Write a result and its conditions as JSON for people and programs, if there is a file."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    told = {"conditions": conditions(_SINCE_IMPORT), "result": result}
    file.write_text(json.dumps(msgspec.to_builtins(told, str_keys=True), indent=1) + "\n")
    print(f"wrote {file}")
