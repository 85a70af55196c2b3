"""``greenroom models``: what could be served, what is here already, fetching and removing."""

import argparse

from rich.table import Table

from greenroom.actors.commands.backend import mlx_needed
from greenroom.actors.commands.command import Commands, add_command, effective, settings_options
from greenroom.actors.commands.output import console, megabytes, print_json
from greenroom.actors.commands.status import Status
from greenroom.runtime.catalog import ModelEntry, load_catalog


def add(commands: Commands) -> None:
    """Add the parsers."""
    settings = settings_options()
    group = add_command(commands, "models", _list, "list, fetch and remove models", settings)
    parts = group.add_subparsers(metavar="PART")
    add_command(parts, "list", _list, "list the catalog, and what is on this disk", settings)
    for name, run, summary in (
        ("pull", _pull, "fetch a model, so that serving it can start at once"),
        ("remove", _remove, "delete a model's files"),
    ):
        parser = add_command(parts, name, run, summary, settings)
        parser.add_argument("name", help="a catalog name, a Hugging Face id, or default")


def _list(options: argparse.Namespace) -> int:
    from greenroom.runtime.shelf import find_model  # the Hugging Face client, slow to import

    models = effective(options).settings.models_path
    rows = [(entry, find_model(entry, models)) for entry in load_catalog().entries.values()]
    if options.json:
        print_json([{**_plain(entry), "on_disk": found} for entry, found in rows])
        return Status.DONE
    table = Table("name", "model", "Hugging Face id", "MB", "default on", "on disk", box=None)
    for entry, found in rows:
        size = str(entry.download_mb or "")
        here = "" if found is None else f"{megabytes(found.num_bytes)} MB"
        default_on = ", ".join(entry.default_on)
        table.add_row(entry.name, entry.title, entry.hub_id or "", size, default_on, here)
    console().print(table, markup=False)
    return Status.DONE


def _pull(options: argparse.Namespace) -> int:
    from greenroom.runtime.download import ensure_model

    entry = _entry(options)
    path = ensure_model(entry, effective(options).settings.models_path)
    if options.json:
        print_json({"name": entry.name, "path": str(path)})
    else:
        print(f"{entry.name} is in {path}")
    return Status.DONE


def _remove(options: argparse.Namespace) -> int:
    from greenroom.runtime.shelf import remove_model

    entry = _entry(options)
    gone = remove_model(entry, effective(options).settings.models_path)
    if options.json:
        print_json({"name": entry.name, "path": gone.path, "num_bytes": gone.num_bytes})
    else:
        print(f"{entry.name} is gone: {megabytes(gone.num_bytes)} MB")
    return Status.DONE


def _entry(options: argparse.Namespace) -> ModelEntry:
    catalog = load_catalog()
    if options.name in catalog.entries:
        return catalog.entries[options.name]
    with mlx_needed():  # which model is the default depends on the device
        from greenroom.runtime.loader import pick_device, pick_platform
    device = effective(options).settings.model.device
    return catalog.resolve(options.name, pick_platform(pick_device(device)))


def _plain(entry: ModelEntry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}
