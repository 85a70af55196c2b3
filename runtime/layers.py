"""Where settings come from: defaults, a TOML file, the environment, the command line.

Each layer is a flat map from dotted keys to values; a later layer wins key by key, and where each
value came from is kept.
"""

import difflib
import os
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from greenroom.runtime.errors import SettingsError
from greenroom.runtime.settings import Settings

PREFIX: Final = "GREENROOM_"
CONFIG_VARIABLE: Final = "GREENROOM_CONFIG"

# The reference system's names, for those who come from it.
ALIASES: Final[Mapping[str, str]] = {
    "SEMANTIC_MLX_MODEL_ID": "model.name",
    "SEMANTIC_MLX_CACHE_BUDGET_MB": "memory.cache_budget_mb",
    "SEMANTIC_MLX_MAX_BATCH_SIZE": "stage.max_batch_size",
    "SEMANTIC_MLX_SCHEDULER_ENABLED": "stage.scheduler",
    "SEMANTIC_ADMIN_KEY": "server.admin_key",
}


class Effective(msgspec.Struct, frozen=True):
    """The settings in force, and for each dotted key the place that its value came from."""

    settings: Settings
    origins: dict[str, str]


def load_settings(
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Effective:
    """Put the layers together.

    ``config`` is the user's TOML file (else ``GREENROOM_CONFIG``, else the one in the user's
    configuration folder if it is there). ``environ`` defaults to the process's environment.
    ``overrides`` are dotted keys from the command line. Raises ``SettingsError`` for an unknown
    key, with the nearest known one, and for a value of the wrong type or out of range.
    """
    environ = os.environ if environ is None else environ
    kinds = _kinds()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def apply(key: str, value: object, origin: str, *, is_text: bool = False) -> None:
        if key not in kinds:
            raise SettingsError(f"{origin}: unknown setting {key!r}{_nearest(key, kinds)}")
        values[key] = _checked(value, kinds[key], f"{origin}: {key}", is_text=is_text)
        origins[key] = origin

    default = files("greenroom.config").joinpath("default.toml").read_bytes()
    for key, value in _flat(_parsed(default, "default.toml")).items():
        apply(key, value, "default")
    if (file := _user_file(config, environ)) is not None:
        for key, value in _flat(_parsed(_read(file), str(file))).items():
            apply(key, value, str(file))
    for name, key in _environment(environ, kinds).items():
        apply(key, environ[name], f"environment {name}", is_text=True)
    for key, value in (overrides or {}).items():
        apply(key, value, "command line", is_text=True)
    values["home"] = str(_home(values["home"], environ))
    return Effective(msgspec.convert(_nested(values), Settings), origins)


def flat_settings(settings: Settings) -> dict[str, Any]:
    """``settings`` as dotted keys, in the order of their declaration."""
    return _flat(msgspec.to_builtins(settings))


def variable_of(key: str) -> str:
    """The environment variable that sets ``key``: ``GREENROOM_SERVER_PORT`` for server.port."""
    return PREFIX + key.upper().replace(".", "_")


def _kinds() -> dict[str, Any]:
    """The type of each dotted key."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(Settings, include_extras=True).items():
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            hints = get_type_hints(kind, include_extras=True)
            kinds |= {f"{name}.{inner}": inner_kind for inner, inner_kind in hints.items()}
        else:
            kinds[name] = kind
    return kinds


def _checked(value: object, kind: Any, place: str, *, is_text: bool) -> Any:
    """``value`` as ``kind``; text is read as the number, bool or comma-separated list it spells."""
    if is_text and get_origin(kind) is tuple:
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        return msgspec.convert(value, kind, strict=not is_text)
    except msgspec.ValidationError as error:
        if get_origin(kind) is Literal:
            wanted = f"expected one of {', '.join(map(repr, get_args(kind)))}"
        else:
            wanted = f"{str(error)[:1].lower()}{str(error)[1:]}"
        raise SettingsError(f"{place} is {value!r}: {wanted}") from None


def _environment(environ: Mapping[str, str], kinds: Mapping[str, Any]) -> dict[str, str]:
    """Variable name to dotted key; aliases first, so that a native name wins."""
    native = {variable_of(key): key for key in kinds}
    found = {name: key for name, key in ALIASES.items() if name in environ}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        if name not in native:
            raise SettingsError(f"environment: unknown setting {name!r}{_nearest(name, native)}")
        found[name] = native[name]
    return found


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "; `greenroom config` lists them all"


def _user_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    if config is not None:
        return config.expanduser()
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named).expanduser()
    folder = environ.get("XDG_CONFIG_HOME") or "~/.config"
    usual = Path(folder, "greenroom", "config.toml").expanduser()
    return usual if usual.is_file() else None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {file}: {error.strerror}") from None


def _parsed(text: bytes, place: str) -> dict[str, Any]:
    try:
        return msgspec.toml.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise SettingsError(f"{place} is not valid TOML: {error}") from None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def _home(chosen: str, environ: Mapping[str, str]) -> Path:
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/greenroom").expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "greenroom").expanduser()
