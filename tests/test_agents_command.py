"""``greenroom agents`` on a store of this machine: nothing of it loads the model."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

import greenroom
from greenroom.actors.cli import main
from greenroom.actors.room import open_settings
from greenroom.actors.sync import in_step
from greenroom.runtime.errors import Unavailable
from greenroom.runtime.layers import load_settings
from tests.menagerie import config_of
from tests.server import make_home
from tests.zoo import save_checkpoint

Tended = Callable[..., str]
LOOKED_AT_BYTES = 16 << 20
"""Far below the weights of the default model, which take 540 MB."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> str:
    config = {**config_of("llama"), "model_type": "llama", "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("agents") / "model"
    return str(save_checkpoint(folder, default_model_path, config))


@pytest.fixture
def tended(capsys: pytest.CaptureFixture[str]) -> Tended:
    def run(*arguments: str, status: int = 0) -> str:
        assert main(["agents", *arguments]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


def test_the_weights_stay_on_disk(tmp_path: Path, tended: Tended) -> None:
    home = make_home(tmp_path / "home")
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    assert json.loads(tended("list", "--home", str(home), "--json")) == []
    assert mx.get_peak_memory() - before < LOOKED_AT_BYTES


def test_what_can_be_done_without_a_model(tmp_path: Path, model: str, tended: Tended) -> None:
    here = ("--home", str(tmp_path / "home"), "--model", model)
    with greenroom.open_sync(model, home=tmp_path / "home") as room:
        first = room.spawn("dave", system="You are Dave.").say("Hello", max_tokens=4)
    shown = json.loads(tended("show", "dave", *here, "--json"))
    assert shown["agent"]["head"] == first.head == shown["log"][-1]["id"]
    assert [entry["recompute_tokens"] for entry in shown["log"]] == [0, 0, 0]
    file = str(tmp_path / "dave.agent")
    tended("export", "dave", file, *here)
    tended("fork", "dave", "erin", "--at", shown["log"][1]["id"][:12], *here)
    assert "3 segments" not in tended("forget", "dave", *here), "erin needs two of them"
    tended("import", file, *here)
    names = [agent["name"] for agent in json.loads(tended(*here, "--json"))]
    assert names == ["dave", "erin"]
    with greenroom.open_sync(model, home=tmp_path / "home") as room:
        for name in names:
            assert room.agent(name).say("And?", max_tokens=2).cached_tokens > 0


def test_what_needs_the_model_is_refused(tmp_path: Path, model: str) -> None:
    overrides = {"home": str(tmp_path), "model.name": model}
    settings = load_settings(environ={}, overrides=overrides).settings
    with in_step(lambda: open_settings(settings, dark=True)) as room:
        bob = room.spawn("bob")
        with pytest.raises(Unavailable, match="no model is loaded"):
            bob.say("Hello")
        with pytest.raises(Unavailable, match="no model is loaded"):
            bob.hear("It rains.")
        assert bob.probe("Hello").cached_tokens == 0
        assert bob.heard().num_pending == 0
        assert room.inspect().house.stored.num_agents == 1
