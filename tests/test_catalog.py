"""Names of models: what they resolve to, and which a request may use."""

from pathlib import Path

import pytest

from greenroom.runtime.catalog import (
    Catalog,
    HubRepo,
    LocalFolder,
    Platform,
    WheelMember,
    check_requested,
    load_catalog,
)
from greenroom.runtime.errors import ModelUnavailable, NotFound


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        ("cpu", "smollm2-135m"),
        ("metal", "gemma-3-12b-it-4bit"),
        ("cuda", "llama-3.1-8b-4bit"),
    ],
)
def test_each_platform_has_one_default(catalog: Catalog, platform: Platform, name: str) -> None:
    assert catalog.resolve("default", platform).name == name
    assert [e.name for e in catalog.entries.values() if platform in e.default_on] == [name]


def test_shipped_entries_are_complete(catalog: Catalog) -> None:
    assert "deepseek-coder-v2-lite-4bit" in catalog.entries
    for name, entry in catalog.entries.items():
        assert entry.name == name
        assert entry.hub_id
        assert entry.context_window
        assert entry.context_window >= 8192
        assert entry.download_mb
        if isinstance(entry.source, WheelMember):
            assert len(entry.source.wheel_sha256) == len(entry.source.member_sha256) == 64


def test_a_hub_id_of_the_catalog_is_the_catalogs_entry(catalog: Catalog) -> None:
    for entry in catalog.entries.values():
        assert entry.hub_id is not None
        assert catalog.resolve(entry.hub_id, "cpu") is entry


def test_other_hub_ids_and_folders_are_models_too(catalog: Catalog, tmp_path: Path) -> None:
    other = catalog.resolve("someone/some-model-4bit", "cpu")
    assert other.source == HubRepo("someone/some-model-4bit")
    assert other.name == "some-model-4bit"
    assert other.answers_to("someone/some-model-4bit")
    local = catalog.resolve(str(tmp_path), "cpu")
    assert local.source == LocalFolder(str(tmp_path.resolve()))


def test_an_unknown_name_gets_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(ModelUnavailable, match="did you mean 'smollm2-135m'"):
        catalog.resolve("smolm2-135m", "cpu")


def test_requests_may_use_four_names_and_no_other(catalog: Catalog) -> None:
    served = catalog.default("cpu")
    for name in (None, "", "default", "smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"):
        check_requested(served, name)
    for name in ("gpt-4o", "Default", "smollm2-135m ", "llama-3.1-8b-4bit"):
        with pytest.raises(NotFound) as caught:
            check_requested(served, name)
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
