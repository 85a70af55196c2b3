"""Results as Markdown, whatever their shape: tables of what is alike, lists of the rest."""

from collections.abc import Mapping, Sequence
from typing import Any

FEW = 12
"""Of a longer row of numbers only the ends are shown."""


def markdown(value: Any) -> str:
    """JSON as Markdown. Rows and records of the same keys become tables."""
    if isinstance(value, list) and value and all(_is_record(row) for row in value):
        return _table(value)
    if isinstance(value, dict) and value and not _is_figure(value):
        rows = list(value.values())
        if all(_is_record(row) and set(row) == set(rows[0]) for row in rows):
            return _table([{"": name, **row} for name, row in value.items()])
        return _mixed(value)
    return _cell(value)


def _mixed(value: Mapping[str, Any]) -> str:
    """What fits a line first, then each part that does not below its name."""
    short = {name: item for name, item in value.items() if not _is_long(item)}
    parts = [_table([{"": _words(name), " ": item} for name, item in short.items()])]
    parts += [
        f"**{_words(name)}**\n\n{markdown(item)}" for name, item in value.items() if _is_long(item)
    ]
    return "\n\n".join(part for part in parts if part)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(map(_words, names))} |", "| --- " * len(names) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(name, '-')) for name in names)} |" for row in rows]
    return "\n".join(lines)


def _is_figure(value: Any) -> bool:
    return isinstance(value, dict) and {"median", "low", "high"} <= set(value)


def _is_record(value: Any) -> bool:
    """A dict of what fits a cell."""
    return (
        isinstance(value, dict)
        and not _is_figure(value)
        and not any(_is_long(item) for item in value.values())
    )


def _is_long(value: Any) -> bool:
    """What does not fit a cell."""
    if isinstance(value, list):
        return any(isinstance(item, (dict, list)) for item in value)
    return isinstance(value, dict) and not _is_figure(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if _is_figure(value):
        if value["low"] == value["high"]:
            return _number(value["median"])
        return f"{_number(value['median'])} ({_number(value['low'])}-{_number(value['high'])})"
    if isinstance(value, list):
        if len(value) > FEW:
            return f"{_cell(value[0])} … {_cell(value[-1])}"
        return ", ".join(map(_cell, value))
    return _number(value)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
