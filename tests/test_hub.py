"""Hugging Face snapshots: found on disk without the network, and refused in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from greenroom.runtime.catalog import HubRepo
from greenroom.runtime.hub import fetch_snapshot

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _nothing(line: str) -> None:
    raise AssertionError(f"nothing is to be fetched: {line}")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A snapshot as huggingface_hub leaves it in its cache, ``tmp_path``."""
    repo = tmp_path / "models--owner--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(_COMMIT)
    folder = repo / "snapshots" / _COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model-00001-of-00002.safetensors").write_text("")
    (folder / "model-00002-of-00002.safetensors").write_text("")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors",'
        ' "b": "model-00002-of-00002.safetensors"}}'
    )
    return folder


def test_a_complete_snapshot_needs_no_network(snapshot: Path, tmp_path: Path) -> None:
    assert fetch_snapshot(HubRepo("owner/model"), tmp_path, None, _nothing) == snapshot


@pytest.mark.parametrize(
    "missing", ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors"]
)
def test_an_incomplete_one_is_fetched_again(snapshot: Path, tmp_path: Path, missing: str) -> None:
    (snapshot / missing).unlink()
    with pytest.raises(AssertionError, match=r"about 8\.1 GB"):
        fetch_snapshot(HubRepo("owner/model"), tmp_path, 8070, _nothing)


def test_without_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from greenroom.runtime.catalog import HubRepo
from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.hub import fetch_snapshot
try:
    fetch_snapshot(HubRepo("owner/model"), Path(sys.argv[1]), None, lambda line: None)
except ModelUnavailable as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("owner/model is not on this machine and Hugging Face cannot be")
    assert "connect and start again" in lines[0]
