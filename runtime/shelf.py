"""Models that are on this disk already: where they are, how large, and how they go.

Nothing is fetched here; ``greenroom.runtime.download`` does that.
"""

import shutil
from pathlib import Path

import msgspec
from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from greenroom.runtime.catalog import HubRepo, LocalFolder, ModelEntry, WheelMember
from greenroom.runtime.download import wheel_folder
from greenroom.runtime.errors import Conflict, NotFound
from greenroom.runtime.hub import find_snapshot


class Shelved(msgspec.Struct, frozen=True):
    """A model on disk. It is ``ours`` when it lies below greenroom's own folder of models."""

    path: str
    num_bytes: int
    ours: bool


def find_model(entry: ModelEntry, models: Path) -> Shelved | None:
    """The model if it is complete on this disk; ``models`` is greenroom's folder of them."""
    match entry.source:
        case LocalFolder(path=path):
            folder = Path(path)
            return Shelved(path, _size(folder), False) if folder.is_dir() else None
        case WheelMember() as source:
            folder = wheel_folder(entry, source, models)
            return Shelved(str(folder), _size(folder), True) if folder.is_dir() else None
        case HubRepo() as source:
            if (own := find_snapshot(source, models / "hub")) is not None:
                return Shelved(str(own), _size(own), True)
            other = find_snapshot(source, None)
            return None if other is None else Shelved(str(other), _size(other), False)


def remove_model(entry: ModelEntry, models: Path) -> Shelved:
    """Delete the model's files, its ``num_bytes`` of them.

    Raises NotFound when it is not on this disk, Conflict when others may use it too: a folder of
    the user's own, or the user's Hugging Face cache.
    """
    found = find_model(entry, models)
    if found is None:
        raise NotFound(f"{entry.name} is not on this disk.", param="model", code="not_here")
    if not found.ours:
        raise Conflict(
            f"{found.path} is not greenroom's to delete: others may use it too.",
            param="model",
            code="not_ours",
        )
    if isinstance(entry.source, HubRepo):
        _remove_repo(entry.source.repo, models / "hub")
    else:
        shutil.rmtree(found.path)
    return found


def _remove_repo(repo: str, cache: Path) -> None:
    try:
        repos = scan_cache_dir(cache).repos
    except CacheNotFound:
        return
    for found in repos:
        if found.repo_id == repo:
            shutil.rmtree(found.repo_path)


def _size(folder: Path) -> int:
    """Bytes of its files; links count as what they point to, as in a hub snapshot."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
