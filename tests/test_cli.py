"""The command line, as the two programs that it is."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import greenroom
from greenroom.actors.cli import main


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=60)


def test_module_and_command_are_the_same_program() -> None:
    command = Path(sys.executable).with_name("greenroom")
    for program in ([str(command)], [sys.executable, "-m", "greenroom"]):
        done = _run(*program, "version")
        assert (done.stdout, done.returncode) == (f"{greenroom.__version__}\n", 0)


def _config(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> dict[str, object]:
    assert main(["config", "--json", *arguments]) == 0
    shown: dict[str, object] = json.loads(capsys.readouterr().out)
    return shown


def test_config_shows_values_and_origins(capsys: pytest.CaptureFixture[str]) -> None:
    shown = _config(capsys, ["--port", "9000", "--set", "stage.schedule=fixed"])
    assert shown["server.port"] == {"value": 9000, "origin": "command line"}
    assert shown["stage.schedule"] == {"value": "fixed", "origin": "command line"}
    assert shown["log.level"] == {"value": "info", "origin": "default"}


@pytest.mark.parametrize("form", [["--json"], []])
def test_config_masks_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    monkeypatch.setenv("SEMANTIC_ADMIN_KEY", "open-sesame")
    assert main(["config", *form, "--set", "server.api_key=other-word"]) == 0
    out = capsys.readouterr().out
    assert "open-sesame" not in out
    assert "other-word" not in out
    assert out.count("***") == 2
    assert "environment SEMANTIC_ADMIN_KEY" in out


def test_the_table_names_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0
    out = capsys.readouterr().out
    assert "GREENROOM_MEMORY_CACHE_BUDGET_MB" in out
    assert "8192" in out


def test_models_lists_the_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "mlx-community/gemma-3-12b-it-4bit" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert "smollm2-135m" in {e["name"] for e in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["config", "--set", "server.prot=1"], "did you mean 'server.port'"),
        (["config", "--set", "server.port"], "--set takes KEY=VALUE"),
        (["serve", "--port", "many"], "expected `int`"),
        (["config", "--config", "/nowhere.toml"], "cannot read the settings"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("greenroom: ")
    assert err.count("\n") == 1


def test_showing_settings_does_not_import_mlx() -> None:
    code = (
        "import sys; from greenroom.actors.cli import main; main(['config', '--json']); "
        "assert not any(name.startswith('mlx') for name in sys.modules)"
    )
    done = _run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
