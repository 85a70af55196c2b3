"""Disks that refuse: typed errors, and what was durable stays."""

from pathlib import Path

import pytest

from greenroom.runtime.errors import StorageFailed
from greenroom.runtime.vault import Damaged, Vault
from tests.test_vault import sample


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(tmp_path / "store")


def test_a_folder_in_a_files_place_is_damage_and_can_be_set_aside(vault: Vault) -> None:
    segment, payload = sample()
    vault.path(segment.id).mkdir(parents=True)
    with pytest.raises(Damaged):
        vault.read(segment.id)
    assert vault.quarantine(segment.id)
    assert vault.write(segment, payload)


def test_a_disk_that_refuses_is_a_typed_error(vault: Vault, tmp_path: Path) -> None:
    segment, payload = sample()
    vault.path(segment.id).parent.write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageFailed):
        vault.write(segment, payload)
