"""The sections: every key is documented, typed and ranged."""

import re
from importlib.resources import files

import msgspec
import pytest

from greenroom.runtime.layers import load_settings
from greenroom.runtime.settings import SECRETS, Settings

DEFAULT_TOML = files("greenroom.config").joinpath("default.toml").read_text("utf-8")


def test_every_key_has_a_comment_right_above_it() -> None:
    lines = DEFAULT_TOML.splitlines()
    keys = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert len(keys) == len(load_settings(environ={}).origins)
    assert [lines[i] for i in keys if not lines[i - 1].startswith("# ")] == []


def test_settings_are_frozen() -> None:
    settings = load_settings(environ={}).settings
    with pytest.raises(AttributeError):
        settings.server.port = 1  # type: ignore[misc]


def test_sections_refuse_unknown_keys() -> None:
    tree = msgspec.to_builtins(load_settings(environ={}).settings)
    tree["server"]["prot"] = 1
    with pytest.raises(msgspec.ValidationError, match="prot"):
        msgspec.convert(tree, Settings)


def test_folders_are_below_home() -> None:
    settings = load_settings(environ={"GREENROOM_HOME": "/somewhere"}).settings
    assert str(settings.store_path) == "/somewhere/store"
    assert str(settings.models_path) == "/somewhere/models"


def test_every_key_that_sounds_secret_is_one() -> None:
    keys = load_settings(environ={}).origins
    assert {key for key in keys if re.search(r"key|token$|secret|password", key)} == SECRETS
