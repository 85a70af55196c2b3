"""Disks that refuse: typed errors, and what was durable stays."""

import errno
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from greenroom.runtime.errors import StorageFailed
from greenroom.runtime.index import Index
from greenroom.runtime.medium import Medium
from greenroom.runtime.segment_file import Damaged
from greenroom.runtime.vault import Vault
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


class Refusing(Medium):
    """Fails one kind of operation while ``broken``; what fails has happened all the same."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.broken = True
        self.unlinked: list[Path] = []

    def sync(self, file: io.FileIO) -> None:
        super().sync(file)
        self._refuse("sync")

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        if len(path.name) == 2:
            self._refuse("sync_folder")

    def link(self, source: Path, target: Path) -> None:
        self._refuse("link")
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.unlinked.append(path)

    def _refuse(self, operation: str) -> None:
        if self.broken and operation == self.operation:
            raise OSError(errno.EIO, "no more of this")


@pytest.mark.parametrize("operation", ["sync", "sync_folder", "link"])
def test_what_failed_to_sync_is_written_anew(tmp_path: Path, operation: str) -> None:
    """A later sync may succeed without having written what an earlier one could not."""
    medium = Refusing(operation)
    vault = Vault(tmp_path / "store", medium=medium)
    segment, payload = sample()
    with pytest.raises(StorageFailed):
        vault.write(segment, payload)
    assert list(vault.ids()) == []
    assert not list((tmp_path / "store" / "tmp").iterdir())
    if operation == "sync_folder":
        assert vault.path(segment.id) in medium.unlinked
    medium.broken = False
    assert vault.write(segment, payload)
    assert vault.read(segment.id)[0] == segment


def test_a_commit_that_fails_changes_nothing(tmp_path: Path) -> None:
    class Full(Medium):
        def __init__(self) -> None:
            self.is_full = False

        def commit(self, database: sqlite3.Connection) -> None:
            if self.is_full:
                raise sqlite3.OperationalError("database or disk is full")
            super().commit(database)

    medium = Full()
    segment, _ = sample(parent=None, start=0)
    with closing(Index(tmp_path, medium)) as index:
        medium.is_full = True
        with pytest.raises(StorageFailed, match="full"):
            index.commit([segment])
        assert index.load_all().segments == ()
        medium.is_full = False
        index.commit([segment])
        assert index.load_all().segments == (segment,)
