"""How commands print: tables for people, JSON for programs, what goes wrong on standard error."""

import sys

import msgspec
from rich.console import Console


def print_json(shown: object) -> None:
    """One JSON document on standard output."""
    print(msgspec.json.format(msgspec.json.encode(shown)).decode())


def print_error(message: str, *, kind: str, status: int, as_json: bool) -> None:
    """One line on standard error."""
    line = f"greenroom: {message}"
    if as_json:
        error = {"type": kind, "message": message, "status": status}
        line = msgspec.json.encode({"error": error}).decode()
    print(line, file=sys.stderr)


def console() -> Console:
    """Full rows when the output goes to a file or a pipe, whose width nobody knows."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def megabytes(num_bytes: int) -> str:
    """A size in MB with a decimal while that says something."""
    size = num_bytes / 1e6
    return f"{size:.1f}" if size < 100 else f"{size:.0f}"
