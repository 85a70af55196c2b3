"""The fingerprint: what changes it, what does not, and when its memory is trusted."""

import os
from pathlib import Path

import pytest

from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.fingerprint import fingerprint

_FILES = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "tokens",
    "tokenizer_config.json": "more",
    "chat_template.jinja": "{{ x }}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name, text in _FILES.items():
        (made / name).write_text(text)
    return made


@pytest.mark.parametrize("name", _FILES)
def test_every_part_counts(folder: Path, tmp_path: Path, name: str) -> None:
    before = fingerprint(folder, sidecars=tmp_path / "side")
    (folder / name).write_text(_FILES[name][::-1] + "?")
    assert fingerprint(folder, sidecars=tmp_path / "side") != before
    (folder / name).write_text(_FILES[name])
    assert fingerprint(folder, sidecars=tmp_path / "side") == before


def test_place_and_prose_do_not_count(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("hello")
    (folder / "generation_config.json").write_text("{}")
    moved = folder.rename(tmp_path / "elsewhere")
    assert fingerprint(moved) == before


def test_contents_do_not_slide_from_file_to_file(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "tokenizer.json").write_text("more")
    (folder / "tokenizer_config.json").write_text("tokens")
    assert fingerprint(folder) != before


def test_unchanged_files_are_not_read_again(folder: Path, tmp_path: Path) -> None:
    first = fingerprint(folder, sidecars=tmp_path / "side")
    sidecar = next((tmp_path / "side").iterdir())
    # A false digest in the sidecar shows when it was believed.
    text = sidecar.read_text()
    digest = text.split('"model.safetensors"')[1].split('"digest":"')[1].split('"')[0]
    sidecar.write_text(text.replace(digest, "0" * 32))
    assert fingerprint(folder, sidecars=tmp_path / "side") != first
    # Same size and same modification time, other contents: not believed.
    weights = folder / "model.safetensors"
    stat = weights.stat()
    weights.write_text("WEIGHTS")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = fingerprint(folder, sidecars=tmp_path / "side")
    weights.write_text("weights")
    assert changed != first
    assert fingerprint(folder, sidecars=tmp_path / "side") == first


def test_a_damaged_sidecar_is_ignored(folder: Path, tmp_path: Path) -> None:
    first = fingerprint(folder, sidecars=tmp_path / "side")
    next((tmp_path / "side").iterdir()).write_text("{")
    assert fingerprint(folder, sidecars=tmp_path / "side") == first


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no model\*\.safetensors"):
        fingerprint(tmp_path)
