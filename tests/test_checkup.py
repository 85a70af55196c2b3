"""The doctor's findings, on machines that are well and on some that are not."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom.actors.checkup import Finding, checkup
from greenroom.actors.cli import main
from greenroom.runtime.index import Index
from greenroom.runtime.layers import load_settings
from tests.server import make_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def look(home: Path, **settings: str) -> dict[str, Finding]:
    overrides = {"home": str(home), "server.port": "0", "model.name": "smollm2-135m"}
    overrides |= {key.replace("__", "."): value for key, value in settings.items()}
    found = checkup(load_settings(environ={}, overrides=overrides).settings)
    return {finding.about: finding for finding in found}


def test_a_machine_that_is_well(home: Path, default_model_path: Path) -> None:
    found = look(home)
    assert {name for name, finding in found.items() if finding.verdict == "broken"} == set()
    assert found["model"].detail.endswith("on disk")
    assert found["template"].verdict == "well"
    assert found["store"].detail.endswith("does not exist yet")


def test_each_thing_that_is_not_well(tmp_path: Path, taken: int) -> None:
    found = look(tmp_path, server__port=str(taken), memory__cache_budget_mb="999999999")
    assert found["model"].fix == "greenroom models pull HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "Address already in use" in found["port"].detail
    assert (found["memory"].fix or "").startswith("memory.cache_budget_mb = ")
    open_to_all = look(tmp_path, server__host="0.0.0.0")["port"]
    assert (open_to_all.verdict, "api_key" in (open_to_all.fix or "")) == ("broken", True)
    unknown = look(tmp_path, model__name="no-such-model")["model"]
    assert unknown.verdict == "broken"


def test_a_store_in_use(tmp_path: Path) -> None:
    index = Index(tmp_path / "store")
    assert "in use by another" in look(tmp_path)["store"].detail
    index.close()
    assert look(tmp_path)["store"].verdict == "well"


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, host: str, status: int
) -> None:
    where = ["--home", str(tmp_path), "--host", host, "--port", "0"]
    assert main(["doctor", "--json", *where]) == status
    shown = json.loads(capsys.readouterr().out)
    assert [finding["about"] for finding in shown][-1] == "port"
    assert main(["doctor", *where]) == status
    assert ("broken" in capsys.readouterr().out) == bool(status)
