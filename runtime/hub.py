"""Snapshots of Hugging Face repositories, by huggingface_hub (resumable, shared cache)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from greenroom.runtime.catalog import HubRepo
from greenroom.runtime.errors import ModelUnavailable

# What mlx-lm reads. Code from the repository is never run, so no *.py.
_FILES: Final = [
    "*.json",
    "*.jinja",
    "*.jsonl",
    "*.tiktoken",
    "*.txt",
    "model*.safetensors",
    "tokenizer.model",
]
# The client library's HTTP errors are not OSErrors; their root is what HfHubHTTPError derives from.
_NETWORK_ERRORS: Final[tuple[type[BaseException], ...]] = (OSError, *HfHubHTTPError.__bases__)


def fetch_snapshot(
    source: HubRepo, cache: Path, download_mb: int | None, report: Callable[[str], None]
) -> Path:
    """The folder of a complete snapshot of ``source``; fetched into ``cache`` if need be.

    The user's own Hugging Face cache is looked at first. Raises ``ModelUnavailable``.
    """
    for place in (cache, None):
        if (found := find_snapshot(source, place)) is not None:
            return found
    size = f" (about {download_mb / 1000:.1f} GB)" if download_mb else ""
    report(f"fetching {source.repo}{size} from Hugging Face, once")
    try:
        folder = snapshot_download(
            source.repo,
            revision=source.revision,
            cache_dir=cache,
            allow_patterns=_FILES,
        )
    except GatedRepoError as error:
        raise ModelUnavailable(
            f"{source.repo} is gated: accept its licence on huggingface.co and log in with "
            "'hf auth login' (or set HF_TOKEN)"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ModelUnavailable(
            f"Hugging Face has no model {source.repo!r} at revision {source.revision!r} that you "
            "may read; check the id, or log in with 'hf auth login'"
        ) from error
    except _NETWORK_ERRORS as error:
        raise ModelUnavailable(_unreachable(source, error)) from error
    if not _is_complete(Path(folder)):
        raise ModelUnavailable(
            f"{source.repo} has no model*.safetensors: mlx-lm cannot load it; look for a "
            "conversion under mlx-community"
        )
    return Path(folder)


def find_snapshot(source: HubRepo, cache: Path | None) -> Path | None:
    """A complete snapshot in ``cache`` (None: the user's own cache), found without the network."""
    try:
        folder = snapshot_download(
            source.repo,
            revision=source.revision,
            cache_dir=cache,
            allow_patterns=_FILES,
            local_files_only=True,
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Path(folder) if _is_complete(Path(folder)) else None


def _is_complete(folder: Path) -> bool:
    """Whether config, tokenizer and every weight file that the index names are there."""
    if not (folder / "config.json").is_file():
        return False
    if not any(folder.glob("tokenizer*")):
        return False
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return all((folder / name).is_file() for name in names)
    return any(folder.glob("model*.safetensors"))


def _unreachable(source: HubRepo, error: BaseException) -> str:
    reason = str(error).strip().splitlines()
    return (
        f"{source.repo} is not on this machine and Hugging Face cannot be reached "
        f"({reason[0] if reason else type(error).__name__}); connect and start again, or point "
        "model.name to a local folder"
    )
