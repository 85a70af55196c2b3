"""docs/adding-models.md, followed to the letter with a checkpoint of two kinds of layers."""

import contextlib
import io
import re
from pathlib import Path

import msgspec
import pytest

from greenroom.runtime.catalog import Catalog, ModelEntry
from tests.menagerie import config_of
from tests.sweep import check
from tests.zoo import save_checkpoint

PAGE = Path(__file__).parent.parent / "docs" / "adding-models.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def checkpoint(tmp_path: Path, default_model_path: Path) -> Path:
    """A tiny model in mlx-lm's layout, with the default model's tokenizer."""
    config = {**config_of("gemma3_text"), "model_type": "gemma3_text"}
    return save_checkpoint(tmp_path / "model", default_model_path, config)


def test_the_entry_is_one() -> None:
    entry = msgspec.toml.decode(block("toml"), type=ModelEntry)
    catalog = Catalog({entry.name: entry})
    assert catalog.resolve("my-model", "cpu") is entry
    assert catalog.resolve("owner/my-model-4bit", "cpu") is entry


def test_the_page_shows_what_a_checkpoint_keeps(checkpoint: Path) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block("python"), str(PAGE), "exec"), {"folder": checkpoint})
    first, *groups = said.getvalue().splitlines()
    assert first == "2048 tokens; 256 bytes a token on stage"
    assert len(groups) == 2
    assert all(kind in said.getvalue() for kind in ("'full'", "'window'"))


def test_the_page_says_how_to_check_an_architecture() -> None:
    assert "python -m tests.sweep" in block("sh")
    assert check("gear").error == ""


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
