"""Whether greenroom will run well here: one look at each thing that it needs.

Nothing is fetched, and no more of the model is loaded than its tokenizer.
"""

import os
import platform
import shutil
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import mlx.core as mx
import msgspec
from mlx_lm.utils import load_tokenizer

import greenroom
from greenroom.actors.guard import is_loopback
from greenroom.runtime.catalog import ModelEntry, load_catalog
from greenroom.runtime.errors import GreenroomError, InvalidRequest, StoreBusy
from greenroom.runtime.index import Index
from greenroom.runtime.loader import pick_device, pick_platform
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.settings import Settings
from greenroom.runtime.shelf import find_model
from greenroom.runtime.text import Text

Verdict = Literal["well", "notice", "broken"]

LOW_DISK_BYTES = 2 << 30
LOW_MEMORY_BYTES = 2 << 30
_TALK = (
    ChatMessage("system", "You are brief."),
    ChatMessage("user", "Hello"),
    ChatMessage("assistant", "Hello!"),
    ChatMessage("user", "Who are you?"),
)


class Finding(msgspec.Struct, frozen=True):
    """What was found. ``broken``: greenroom will not start, or not do what was asked for; a
    ``notice`` is worth knowing. ``fix`` says what to do, where something is to be done."""

    about: str
    verdict: Verdict
    detail: str
    fix: str | None = None


def checkup(settings: Settings) -> list[Finding]:
    """Look at everything, in the order in which it is needed."""
    looks: Sequence[Callable[[Settings], Finding]] = (
        _python,
        _device,
        _blas,
        _memory,
        _model,
        _template,
        _store,
        _disk,
        _port,
    )
    return [_safely(look, settings) for look in looks]


def _safely(look: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return look(settings)
    except (GreenroomError, OSError) as error:
        return Finding(look.__name__.strip("_"), "broken", str(error))


def _python(settings: Settings) -> Finding:
    versions = ", ".join(f"{name} {version(name)}" for name in ("mlx", "mlx-lm"))
    return Finding(
        "python",
        "well",
        f"greenroom {greenroom.__version__}, Python {platform.python_version()}, {versions}, "
        f"{platform.system()} {platform.machine()}",
    )


def _device(settings: Settings) -> Finding:
    device = pick_device(settings.model.device)
    backend = pick_platform(device)
    if backend != "cpu":
        return Finding("device", "well", f"GPU ({backend})")
    cores = os.cpu_count() or 1
    if mx.metal.is_available() or mx.cuda.is_available():
        return Finding("device", "notice", "CPU, although there is a GPU", "unset model.device")
    return Finding("device", "well", f"CPU, {cores} cores; MLX finds neither Metal nor CUDA")


def _blas(settings: Settings) -> Finding:
    blas = greenroom.BLAS
    if blas.warning is not None:
        return Finding("blas", "notice", blas.warning, "pip install 'greenroom[cpu]'")
    if blas.library is None:
        return Finding("blas", "well", "the backend's own")
    return Finding("blas", "well", Path(blas.library).name)


def _memory(settings: Settings) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    budget = settings.memory.cache_budget_mb << 20
    detail = f"{total / 1e9:.1f} GB; memories may take {budget / 1e9:.1f} GB"
    if total < LOW_MEMORY_BYTES:
        return Finding("memory", "notice", detail, "use the smallest model")
    if budget > total // 2:
        half = (total // 2) >> 20
        return Finding(
            "memory", "notice", f"{detail}, more than half", f"memory.cache_budget_mb = {half}"
        )
    return Finding("memory", "well", detail)


def _model(settings: Settings) -> Finding:
    entry = _entry(settings)
    found = find_model(entry, settings.models_path)
    if found is not None:
        return Finding("model", "well", f"{entry.name}, {found.num_bytes / 1e6:.0f} MB, on disk")
    size = f"{entry.download_mb} MB" if entry.download_mb else "of unknown size"
    return Finding(
        "model",
        "notice",
        f"{entry.name} ({size}) is not on this disk and will be fetched at the first start",
        f"greenroom models pull {entry.hub_id or entry.name}",
    )


def _template(settings: Settings) -> Finding:
    """A prompt must begin with what was said before, or it cannot be remembered."""
    found = find_model(_entry(settings), settings.models_path)
    if found is None:
        return Finding("template", "notice", "known once the model is here")
    text = Text(load_tokenizer(Path(found.path)))
    try:
        first = text.render(_TALK[:2])
        whole = text.render(_TALK)
    except InvalidRequest as error:
        return Finding("template", "notice", f"it refuses a plain conversation: {error}")
    if whole.startswith(first):
        return Finding("template", "well", "a conversation's prompt begins with the one before")
    return Finding(
        "template",
        "notice",
        "a longer conversation does not begin with the shorter one: less of it is remembered",
    )


def _store(settings: Settings) -> Finding:
    path = settings.store_path
    if not path.exists():
        return Finding("store", "well", f"{path} does not exist yet")
    try:
        index = Index(path)
    except StoreBusy:
        return Finding(
            "store",
            "notice",
            f"{path} is in use by another greenroom process",
            "use --url to reach its agents, or stop it",
        )
    index.close()
    return Finding("store", "well", str(path))


def _disk(settings: Settings) -> Finding:
    home = settings.home_path
    while not home.exists():
        home = home.parent
    if not os.access(home, os.W_OK):
        fix = "set another home (--home)"
        return Finding("disk", "broken", f"{home} cannot be written to", fix)
    free = shutil.disk_usage(home).free
    detail = f"{free / 1e9:.1f} GB free below {home}"
    if free < LOW_DISK_BYTES:
        return Finding("disk", "notice", detail, "make room, or set another home (--home)")
    return Finding("disk", "well", detail)


def _port(settings: Settings) -> Finding:
    server = settings.server
    where = f"{server.host}:{server.port}"
    if not is_loopback(server.host) and not server.api_key:
        return Finding(
            "port",
            "broken",
            f"{where} would be open to the whole network, and is refused",
            "set server.api_key, or listen on 127.0.0.1",
        )
    try:
        with socket.create_server((server.host, server.port)):
            return Finding("port", "well", f"{where} is free")
    except OSError as error:
        detail = f"cannot listen on {where}: {error.strerror or error}"
        return Finding("port", "notice", detail, "stop what listens there, or --port N")


def _entry(settings: Settings) -> ModelEntry:
    backend = pick_platform(pick_device(settings.model.device))
    return load_catalog().resolve(settings.model.name, backend)
