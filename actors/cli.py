"""The command ``greenroom``: serve, and show what is configured and what could be served."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

import greenroom
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.errors import GreenroomError, SettingsError
from greenroom.runtime.layers import Effective, flat_settings, load_settings, variable_of
from greenroom.runtime.settings import SECRETS

# Shorthands for the keys that are changed most; every key can be set by --set.
_SHORTHANDS = {
    "model": "model.name",
    "device": "model.device",
    "host": "server.host",
    "port": "server.port",
    "home": "home",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 2 when the caller must act first."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except GreenroomError as error:
        print(f"greenroom: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    shared.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set any one setting"
    )
    for name, key in _SHORTHANDS.items():
        shared.add_argument(f"--{name}", metavar="VALUE", help=f"sets {key}")
    parser = argparse.ArgumentParser(prog="greenroom", description=greenroom.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", parents=[shared], help="serve the agents over HTTP")
    config = commands.add_parser(
        "config", parents=[shared], help="print the settings in force and where each came from"
    )
    config.add_argument("--json", action="store_true", help="print JSON")
    models = commands.add_parser("models", help="list the models in the catalog")
    models.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("version", help="print the version")
    return parser


def _run(options: argparse.Namespace) -> int:
    match options.command:
        case "serve":
            return _serve(_effective(options))
        case "config":
            _print_config(_effective(options), as_json=options.json)
        case "models":
            _print_models(as_json=options.json)
        case _:
            print(greenroom.__version__)
    return 0


def _effective(options: argparse.Namespace) -> Effective:
    overrides: dict[str, str] = {}
    for item in options.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(f"command line: --set takes KEY=VALUE, not {item!r}")
        overrides[key.strip()] = value
    for name, key in _SHORTHANDS.items():
        if (value := getattr(options, name)) is not None:
            overrides[key] = value
    return load_settings(config=options.config, overrides=overrides)


def _serve(effective: Effective) -> int:
    try:
        from greenroom.actors.app import serve
    except ImportError as error:
        if not _is_backend_missing(error):
            raise
        print(
            f"greenroom: MLX has no backend here ({error}); install one: "
            "pip install 'greenroom[cpu]' or, with an NVIDIA card, pip install 'greenroom[cuda]'",
            file=sys.stderr,
        )
        return 2
    if greenroom.BLAS.warning is not None:
        print(f"greenroom: {greenroom.BLAS.warning}", file=sys.stderr)
    return serve(effective.settings)


def _is_backend_missing(error: ImportError) -> bool:
    """mlx without a backend either has no core module or cannot load the library behind it."""
    return (error.name or "").startswith("mlx") or "libmlx" in str(error)


def _print_config(effective: Effective, *, as_json: bool) -> None:
    rows = {
        key: "***" if key in SECRETS and value else value
        for key, value in flat_settings(effective.settings).items()
    }
    if as_json:
        shown = {
            key: {"value": value, "origin": effective.origins[key]} for key, value in rows.items()
        }
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())
        return
    table = Table("setting", "value", "from", "environment variable", box=None)
    for key, value in rows.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        table.add_row(key, text, effective.origins[key], variable_of(key))
    _console().print(table, markup=False)


def _print_models(*, as_json: bool) -> None:
    entries = list(load_catalog().entries.values())
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(entries)).decode())
        return
    table = Table("name", "model", "Hugging Face id", "MB", "default on", box=None)
    for entry in entries:
        size = str(entry.download_mb or "")
        table.add_row(
            entry.name, entry.title, entry.hub_id or "", size, ", ".join(entry.default_on)
        )
    _console().print(table, markup=False)


def _console() -> Console:
    """Full rows when the output goes to a file or a pipe, whose width nobody knows."""
    return Console() if sys.stdout.isatty() else Console(width=200)
