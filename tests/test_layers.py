"""Layering: who wins, who is refused, and what is remembered about it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.errors import SettingsError
from greenroom.runtime.layers import ALIASES, flat_settings, load_settings, variable_of

KEYS = list(load_settings(environ={}).origins)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text("[server]\nport = 1111\nhost = '0.0.0.0'\n[stage]\nmax_batch_size = 3\n")
    return file


def test_later_layers_win_key_by_key_and_origins_are_kept(toml: Path) -> None:
    got = load_settings(
        config=toml,
        environ={"GREENROOM_SERVER_PORT": "2222", "GREENROOM_STAGE_MAX_BATCH_SIZE": "4"},
        overrides={"stage.max_batch_size": "5"},
    )
    assert got.settings.server.port == 2222
    assert got.settings.server.host == "0.0.0.0"
    assert got.settings.stage.max_batch_size == 5
    assert got.origins["server.port"] == "environment GREENROOM_SERVER_PORT"
    assert got.origins["server.host"] == str(toml)
    assert got.origins["stage.max_batch_size"] == "command line"
    assert got.origins["log.level"] == "default"


def test_the_file_is_found_in_three_places(toml: Path, tmp_path: Path) -> None:
    usual = tmp_path / "xdg" / "greenroom" / "config.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text("[server]\nport = 3333\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert load_settings(environ=environ).settings.server.port == 3333
    environ["GREENROOM_CONFIG"] = str(toml)
    assert load_settings(environ=environ).settings.server.port == 1111
    assert load_settings(environ=environ, config=usual).settings.server.port == 3333


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(environ={"GREENROOM_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("environ", "overrides", "words"),
    [
        ({"GREENROOM_SERVER_PROT": "1"}, {}, "did you mean 'GREENROOM_SERVER_PORT'"),
        ({}, {"server.prot": "1"}, "did you mean 'server.port'"),
        ({}, {"qqqqqq": "1"}, "lists them all"),
        ({}, {"server.port": "http"}, "server.port is 'http': expected `int`"),
        ({}, {"server.port": "65536"}, "<= 65535"),
        ({}, {"stage.scheduler": "perhaps"}, "stage.scheduler is 'perhaps'"),
        ({}, {"memory.durability": "never"}, "expected one of 'turn', 'async'"),
        ({"SEMANTIC_MLX_MAX_BATCH_SIZE": "0"}, {}, "SEMANTIC_MLX_MAX_BATCH_SIZE"),
        ({}, {"server": "1"}, "unknown setting 'server'"),
    ],
)
def test_what_is_wrong_is_said(
    environ: dict[str, str], overrides: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ=environ, overrides=overrides)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nport = '8000'", "expected `int`"),  # TOML has types of its own
        ("[sever]\nport = 1", "did you mean 'server.port'"),
        ("[server\n", "not valid TOML"),
        ("server = 3", "unknown setting 'server'"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(config=file, environ={})
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_the_reference_names_do_what_they_say() -> None:
    environ = {
        "SEMANTIC_MLX_MODEL_ID": "owner/model",
        "SEMANTIC_MLX_CACHE_BUDGET_MB": "4096",
        "SEMANTIC_MLX_MAX_BATCH_SIZE": "7",
        "SEMANTIC_MLX_SCHEDULER_ENABLED": "false",
        "SEMANTIC_ADMIN_KEY": "sesame",
    }
    assert set(environ) == set(ALIASES)
    settings = load_settings(environ=environ).settings
    assert settings.model.name == "owner/model"
    assert settings.memory.cache_budget_mb == 4096
    assert settings.stage.max_batch_size == 7
    assert settings.stage.scheduler is False
    assert settings.server.admin_key == "sesame"


def test_a_native_name_wins_over_its_alias() -> None:
    environ = {"SEMANTIC_MLX_MODEL_ID": "theirs/model", "GREENROOM_MODEL_NAME": "ours/model"}
    got = load_settings(environ=environ)
    assert got.settings.model.name == "ours/model"
    assert got.origins["model.name"] == "environment GREENROOM_MODEL_NAME"


def test_home_defaults_to_the_cache_folder_and_is_absolute(tmp_path: Path) -> None:
    assert load_settings(environ={}).settings.home_path.is_absolute()
    assert load_settings(environ={}).settings.home_path.name == "greenroom"
    assert load_settings(environ={}, overrides={"home": "x"}).settings.home_path == Path.cwd() / "x"


def test_a_list_is_comma_separated_outside_toml() -> None:
    environ = {"GREENROOM_SERVER_ALLOWED_ORIGINS": "https://a.example, http://localhost:3000"}
    allowed = load_settings(environ=environ).settings.server.allowed_origins
    assert allowed == ("https://a.example", "http://localhost:3000")


@given(st.sampled_from(KEYS))
def test_every_key_can_be_set_by_its_variable(key: str) -> None:
    value = flat_settings(load_settings(environ={}).settings)[key]
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, (list, tuple)):
        text = ",".join(value)
    got = load_settings(environ={variable_of(key): text})
    assert flat_settings(got.settings)[key] == value
    assert got.origins[key] == f"environment {variable_of(key)}"


@given(st.text(min_size=1), st.text())
def test_any_other_key_is_a_settings_error(key: str, value: str) -> None:
    if key not in KEYS:
        with pytest.raises(SettingsError):
            load_settings(environ={}, overrides={key: value})
