"""The command that performs scene files."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from greenroom.actors.cli import main
from greenroom.actors.commands.playbill import Playbill
from greenroom.actors.commands.status import Status
from greenroom.runtime.ballot import Ballot
from greenroom.runtime.scene_file import read_scenario
from greenroom.runtime.transcript import Cast, Ended, Line, PhaseBegun, Silence
from tests.menagerie import config_of
from tests.server import ROOT, make_home
from tests.zoo import save_checkpoint

FILE = ROOT / "examples" / "dilemma.toml"


def test_a_faulty_file_is_named_with_its_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scene.toml"
    file.write_text(FILE.read_text().replace('audience = ["Warden", "Marco"]', 'audience = ["D"]'))
    assert main(["scene", "run", str(file)]) == Status.MISTAKEN
    told = capsys.readouterr().err
    assert "scene.toml: phases[2].audience: 'D' is not a member" in told
    assert main(["scene", "run", str(tmp_path / "none.toml")]) == Status.MISTAKEN
    file.write_text('name = "chat"\n[[members]]\nname = "ann"\n')
    assert main(["scene", "run", str(file)]) == Status.MISTAKEN
    assert "--turns" in capsys.readouterr().err


def test_a_scene_is_printed_for_people() -> None:
    out = Console(width=60, record=True, file=io.StringIO())
    scenario = read_scenario(FILE.read_text())
    playbill = Playbill(scenario.names, out, scenario.phases)
    for entry in (
        PhaseBegun(number=0, phase=0),
        Line(number=1, phase=0, text="It [is] night."),
        Line(number=2, phase=0, text="Psst.", to=("Danny",)),
        Line(number=3, phase=0, text="I know.", speaker="Marco", cue=2),
        Silence(number=4, phase=0, speaker="Danny", cue=3, reason="failed"),
        Cast(number=5, phase=0, cue=4, poll=3, ballot=Ballot("Danny", "no", ())),
        Ended(number=6, phase=4, reason="finished"),
    ):
        playbill.show(entry)
    lines = [line.strip() for line in out.export_text().splitlines()]
    assert "The offer" in lines[0]
    assert lines[1:] == [
        "It [is] night.",
        "(to Danny only) Psst.",
        "Marco: I know.",
        "Danny says nothing (failed)",
        "Danny votes: no valid choice",
        "The scene is over (finished).",
    ]


@pytest.mark.slow
def test_a_scene_file_runs_goes_on_and_begins_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = str(make_home(tmp_path / "home"))
    run = ["scene", "run", str(FILE), "--home", home, "--json", "--set", "log.level=error"]
    assert main([*run, "--turns", "2"]) == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(run) == 0
    whole = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert whole[: len(first)] == first
    assert whole[-1] == {"type": "end", "number": len(whole) - 1, "phase": 4, "reason": "finished"}
    assert [e["number"] for e in whole] == list(range(len(whole)))
    tallies = [e["tally"] for e in whole if e["type"] == "tally"]
    assert len(tallies) == 3, "one vote a round"
    assert all(tally["num_valid"] + tally["num_invalid"] == 2 for tally in tallies)
    assert main([*run, "--turns", "1", "--again"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(again) < len(whole)


COMMAND = """
import signal, sys
from greenroom.actors.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.exit(main())
"""
CHAT = """
name = "chat"
max_tokens = 24
temperature = 0.0
[[members]]
name = "ann"
system = "You are Ann."
[[members]]
name = "bob"
[[phases]]
turns = 40
whispers = { bob = "Ann is late." }
"""


@pytest.mark.slow
def test_ctrl_c_stops_a_scene_which_goes_on_and_is_shown_and_forgotten(
    tmp_path: Path, default_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**config_of("llama"), "model_type": "llama", "vocab_size": 49152}
    model = save_checkpoint(tmp_path / "model", default_model_path, config)
    file = tmp_path / "chat.toml"
    file.write_text(CHAT)
    where = ["--home", str(make_home(tmp_path / "home")), "--model", str(model), "--json"]
    run = ["scene", "run", str(file), *where]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *run],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(6)]
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=200)
    assert process.returncode == Status.INTERRUPTED
    assert "the same command goes on from here" in told
    assert "Traceback" not in told
    first += [json.loads(line) for line in rest.splitlines()]
    assert main(run) == 0
    whole = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert whole[: len(first)] == first
    assert len([e for e in whole if e["type"] in ("line", "silence") and e.get("cue")]) == 40
    assert main(["scene", "show", "chat", *where]) == 0
    assert json.loads(capsys.readouterr().out) == whole
    assert main(["scene", "show", "chat", "--heard-by", "ann", *where]) == 0
    heard = json.loads(capsys.readouterr().out)
    assert not [line for line in heard if line.get("to")]
    assert main(["scene", "list", *where]) == 0
    assert [s["ended"] for s in json.loads(capsys.readouterr().out)] == ["finished"]
    file.write_text(CHAT.replace("turns = 40", "turns = 2"))
    assert main(run) == Status.MISTAKEN
    assert "--again begins anew" in capsys.readouterr().err
    assert main([*run, "--again"]) == 0
    capsys.readouterr()
    assert main(["scene", "delete", "chat", *where]) == 0
    capsys.readouterr()
    assert main(["scene", "show", "chat", *where]) == Status.NOT_FOUND
