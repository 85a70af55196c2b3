"""The identity of a model: a digest over everything that its attention state depends on.

Two fine-tunes of one shape differ in it, and so does a model whose chat template was edited.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from greenroom.runtime.errors import ModelUnavailable

# What mlx-lm reads to build model and tokenizer. generation_config.json only holds sampling
# defaults and stop tokens: no cached state depends on it.
_PATTERNS: Final = (
    "config.json",
    "hf_quant_config.json",
    "model*.safetensors",
    "tokenizer*",
    "tiktoken*",
    "*.tiktoken",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.jinja",
    "*.py",
)
_READ_BYTES: Final = 1 << 22


class _Stamp(msgspec.Struct, frozen=True, array_like=True):
    """What a file looked like when it was hashed; any change makes the digest worthless."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class _Hashed(msgspec.Struct, frozen=True):
    stamp: _Stamp
    digest: str


def fingerprint(folder: Path, *, sidecars: Path | None = None) -> str:
    """Hex digest (32 characters) of the model in ``folder``.

    Hashing gigabytes takes seconds, so the digest of each file is kept in ``sidecars`` (a folder
    of the user's cache) and used again only while the file's size, times and inode are the same.
    Raises ``ModelUnavailable`` when there is no model in ``folder``.
    """
    files = sorted({f for pattern in _PATTERNS for f in folder.glob(pattern) if f.is_file()})
    if not any(f.suffix == ".safetensors" for f in files):
        raise ModelUnavailable(f"{folder} holds no model*.safetensors")
    sidecar = sidecars / f"{_text_digest([str(folder.resolve())])}.json" if sidecars else None
    known = _read_sidecar(sidecar)
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib leaves the interpreter lock
        entries = pool.map(lambda file: _hash(file, known.get(file.name)), files)
        hashed = {file.name: entry for file, entry in zip(files, entries, strict=True)}
    if sidecar is not None and hashed != known:
        _write_sidecar(sidecar, hashed)
    return _text_digest(f"{name}\0{entry.digest}" for name, entry in hashed.items())


def _hash(file: Path, known: _Hashed | None) -> _Hashed:
    with file.open("rb") as source:
        stamp = _stamp(source.fileno())
        if known is not None and known.stamp == stamp:
            return known
        digest = hashlib.blake2b(digest_size=16)
        while block := source.read(_READ_BYTES):
            digest.update(block)
        if _stamp(source.fileno()) != stamp:
            raise ModelUnavailable(f"{file} changed while it was being read; try again")
    return _Hashed(stamp, digest.hexdigest())


def _stamp(fd: int) -> _Stamp:
    stat = os.fstat(fd)
    return _Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _text_digest(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _read_sidecar(path: Path | None) -> dict[str, _Hashed]:
    if path is None:
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, _Hashed])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _write_sidecar(path: Path, hashed: dict[str, _Hashed]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        temporary.write(msgspec.json.encode(hashed))
    os.replace(temporary.name, path)
