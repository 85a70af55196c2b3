"""The composition root: everything is made here, in order, and handed only what it needs."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import uvloop

from greenroom.actors.company import Company
from greenroom.actors.custodian import Custodian, quota_of
from greenroom.actors.director import Director
from greenroom.actors.gpu import Emit, Flush, GpuActor, Patience
from greenroom.actors.http import serve_http
from greenroom.actors.keeper import Keeper
from greenroom.actors.messages import Back, CustodianMessage, Describe, ModelFacts, Shed, Wrote
from greenroom.actors.meter import Meter
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.reaper import Reaper
from greenroom.actors.scribe import Scribe
from greenroom.actors.store import Store
from greenroom.actors.theatre import Scenes, Theatre
from greenroom.runtime.admission import Backing
from greenroom.runtime.audit import recall
from greenroom.runtime.catalog import ModelEntry, load_catalog
from greenroom.runtime.claims import check_claims
from greenroom.runtime.codec import DEFAULT_CODEC, Codec, codec_named
from greenroom.runtime.download import ensure_model
from greenroom.runtime.errors import (
    ActorStopped,
    GreenroomError,
    MailboxFull,
    ModelUnavailable,
    StoreUnusable,
)
from greenroom.runtime.host import memory_limit, wire_memory
from greenroom.runtime.hot import room_for_copies
from greenroom.runtime.index import Index
from greenroom.runtime.ledger import Ledger
from greenroom.runtime.limits import StageLimits
from greenroom.runtime.loader import last_position_head, load, pick_device, pick_platform
from greenroom.runtime.logs import start_logging
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import Settings
from greenroom.runtime.spec import extract_spec
from greenroom.runtime.stage import Stage
from greenroom.runtime.supervise import Decision, Supervision, default_decider
from greenroom.runtime.system import System
from greenroom.runtime.text import Text
from greenroom.runtime.trial import serves_rows_together
from greenroom.runtime.vault import Vault

T = TypeVar("T")
log = logging.getLogger("greenroom.stage")
# Whom everybody asks: a thousand agents at once wait in line there. What may pile up is bounded by
# the agents' own mailboxes, and by the doors.
PATIENT = MailboxSpec(when_full="wait")


class _Ground(msgspec.Struct, frozen=True):
    """What stands on disk before any actor does."""

    entry: ModelEntry
    model_path: Path
    vault: Vault
    index: Index
    ledger: Ledger


class _Threads(NamedTuple):
    """Who waits for whom: decoding, which the stage waits for, for no disk; writing, which the ends
    of turns wait for, for no reading. All of them leave the GIL alone, so a few are enough."""

    decode: ThreadPoolExecutor
    write: ThreadPoolExecutor
    read: ThreadPoolExecutor

    @classmethod
    def start(cls) -> "_Threads":
        """None runs before it is needed."""
        names = ("greenroom-decode", "greenroom-write", "greenroom-read")
        return cls(*(ThreadPoolExecutor(min(4, os.cpu_count() or 1), name) for name in names))

    def stop(self) -> None:
        """Wait for what runs."""
        for pool in self:
            pool.shutdown()


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[Playhouse]:
    """Bring the model, start the actors, and stop them in reverse order at the end.

    Raises ModelUnavailable, SettingsError, StoreUnusable, and StoreBusy when another process has
    the store.
    """
    ground = await asyncio.to_thread(_prepare, settings)
    threads = _Threads.start()
    scribe = Scribe(ground.ledger)
    try:
        async with System() as system:
            yield await _people(system, settings, ground, threads, scribe)
    finally:
        await scribe.close()
        await asyncio.to_thread(ground.ledger.close)
        await asyncio.to_thread(threads.stop)
        await asyncio.to_thread(ground.index.close)


def _prepare(settings: Settings) -> _Ground:
    platform = pick_platform(pick_device(settings.model.device))
    entry = load_catalog().resolve(settings.model.name, platform)
    path = ensure_model(entry, settings.models_path)
    index = Index(settings.store_path)  # first: its lock keeps other processes away
    try:
        vault = Vault(settings.store_path)
        vault.clear_temporary()
        ledger = Ledger(settings.store_path)
    except OSError as error:
        index.close()
        raise StoreUnusable(settings.store_path, error) from error
    except GreenroomError:
        index.close()
        raise
    return _Ground(entry, path, vault, index, ledger)


async def _people(
    system: System, settings: Settings, ground: _Ground, threads: _Threads, scribe: Scribe
) -> Playhouse:
    """Spawn the actors, in the order in which they need each other."""
    make = partial(make_stage, settings, ground.entry, ground.model_path, threads.decode)
    patience = Patience(settings.memory.release_after_s, settings.stage.memory_wait_s)

    def relieve(num_bytes: int) -> None:
        with contextlib.suppress(MailboxFull, ActorStopped):
            keeper.tell(Shed(num_bytes))

    gpu = system.spawn("gpu", partial(GpuActor, make, [], patience, relieve), supervision=_vital())
    facts = await _unless_failed(system, gpu.ask(Describe()))
    store = system.spawn(
        "store",
        partial(Store, ground.index, facts.fingerprint, partial(recall, ground.vault)),
        supervision=_vital(),
        mailbox=PATIENT,
    )
    budget_bytes = settings.memory.cache_budget_mb << 20

    def back(hot: int, pending: int) -> None:
        # Full or restarting: the next turn tells it again.
        with contextlib.suppress(MailboxFull, ActorStopped):
            gpu.tell(Back(Backing(room_for_copies(budget_bytes, hot), hot, pending)))

    def grown(num_bytes: int | None) -> None:
        with contextlib.suppress(MailboxFull, ActorStopped):  # the next round counts anew
            custodian.tell(Wrote(num_bytes))

    keeper = system.spawn(
        "keeper",
        partial(
            Keeper,
            ground.vault,
            facts.spec,
            budget_bytes,
            threads.write,
            threads.read,
            back,
            grown,
        ),
        supervision=_vital(),
    )
    custodian: Ref[CustodianMessage] = system.spawn(
        "custodian",
        partial(
            Custodian,
            store,
            keeper,
            ground.vault,
            threads.read,
            quota_of(settings.memory),
            max(facts.spec.windows, default=0),
        ),
        supervision=_vital(),
    )
    company = Company(
        gpu=gpu,
        keeper=keeper,
        store=store,
        custodian=custodian,
        facts=facts,
        codec=_codec(settings, ground.entry).label,
        meter=Meter(),
        durable_turns=settings.memory.durability == "turn",
    )
    mailbox = MailboxSpec(settings.actors.mailbox_capacity)
    director = system.spawn(
        "director",
        partial(Director, company, mailbox, settings.actors.passivate_after_s),
        supervision=_vital(),
        mailbox=PATIENT,
    )
    system.spawn("reaper", partial(Reaper, store, director), supervision=_vital())

    def make_theatre() -> Theatre:
        return Theatre(scribe, house, mailbox, settings.actors.passivate_after_s)

    theatre = system.spawn("theatre", make_theatre, supervision=_vital())
    scenes = Scenes(theatre, scribe, settings.actors.channel_capacity)
    house = Playhouse(settings, ground.entry, company, director, system, scenes)
    return house


def make_stage(
    settings: Settings,
    entry: ModelEntry,
    path: Path,
    pool: Executor | None,
    emit: Emit,
    flush: Flush = lambda: None,
) -> tuple[Stage, ModelFacts]:
    """Load the model and set the stage, on the thread that will own MLX."""
    device = pick_device(settings.model.device)
    loaded = load(
        path,
        device=device,
        context_window=entry.context_window,
        sidecars=settings.home_path / "fingerprints",
    )
    spec = extract_spec(loaded.model, loaded.config)
    check_claims(entry.cache, spec)
    max_batch_size = settings.stage.max_batch_size if settings.stage.scheduler else 1
    if max_batch_size > 1 and not serves_rows_together(loaded.model):
        log.warning(
            "%s gives other logits in a batch than alone (mlx-lm's fault): it is served one "
            "sequence at a time, as with stage.max_batch_size = 1",
            entry.name,
        )
        max_batch_size = 1
    limits = StageLimits(
        max_batch_size=max_batch_size,
        chunk_tokens=settings.stage.chunk_tokens,
        schedule=settings.stage.schedule,
        max_decode_gap_s=settings.stage.max_decode_gap_ms / 1e3,
        resident_bytes=min(settings.memory.resident_budget_mb, settings.memory.cache_budget_mb)
        << 20,
        memory_bytes=settings.stage.memory_budget_mb << 20 or memory_limit(),
    )
    wire_memory()
    advice = _generation_config(path)
    text = Text(loaded.tokenizer)
    for line in text.report.lines():
        log.info("the chat template of %s: %s", entry.name, line)
    facts = ModelFacts(
        fingerprint=loaded.fingerprint,
        context_window=loaded.context_window,
        text=text,
        spec=spec,
        temperature=float(advice.get("temperature", 1.0)),
        top_p=float(advice.get("top_p", 1.0)),
    )
    model = last_position_head(loaded.model)
    return Stage(model, spec, _codec(settings, entry), limits, emit, pool, flush=flush), facts


def announce_plainly(model: str, url: str) -> None:
    """Say on standard error that the agents are at home."""
    print(f"greenroom serves {model} at {url}", file=sys.stderr, flush=True)


def serve(settings: Settings, announce: Callable[[str, str], None] = announce_plainly) -> int:
    """Serve over HTTP until SIGINT or SIGTERM; returns the exit status.

    ``announce`` is told the model's name and the URL once turns are taken. A second signal ends
    the process at once.
    """
    start_logging(settings.log)
    return uvloop.run(_serve(settings, announce))


async def _serve(settings: Settings, announce: Callable[[str, str], None]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    serving = False

    def asked_to_stop(number: int) -> None:
        # What was told to be durable is: leaving at once loses only what runs. A load cannot be
        # interrupted, and nothing runs then.
        if stop.is_set() or not serving:
            os._exit(128 + number if serving else 0)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked_to_stop, number)
    server = settings.server
    async with open_house(settings) as house, serve_http(house, server.host, server.port) as url:
        serving = True
        announce(house.model.name, url)
        stopped = asyncio.ensure_future(stop.wait())
        either: list[asyncio.Future[Any]] = [stopped, house.failure]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        house.drain()
        if house.failure.done():
            stopped.cancel()
            print(f"greenroom failed: {house.failure.result()!r}", file=sys.stderr, flush=True)
            return 1
        print("greenroom is stopping: running turns may finish", file=sys.stderr, flush=True)
    return 0


def _codec(settings: Settings, entry: ModelEntry) -> Codec:
    name = settings.memory.codec
    return codec_named(entry.cache.codec or DEFAULT_CODEC if name == "auto" else name)


def _generation_config(path: Path) -> dict[str, float]:
    file = path / "generation_config.json"
    config = json.loads(file.read_text()) if file.exists() else {}
    return {k: config[k] for k in ("temperature", "top_p") if config.get(k) is not None}


def _vital() -> Supervision:
    """For actors that nothing works without: when restarts do not help, the system has failed."""
    return Supervision(decider=_vital_decider, exhausted=Decision.ESCALATE)


def _vital_decider(error: BaseException) -> Decision:
    # Loading again would fail again.
    return Decision.ESCALATE if isinstance(error, ModelUnavailable) else default_decider(error)


async def _unless_failed(system: System, work: Coroutine[Any, Any, T]) -> T:
    """Wait for ``work``, or raise what the system has failed of."""
    task = asyncio.ensure_future(work)
    both: list[asyncio.Future[Any]] = [task, system.failure]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if system.failure.done():
        task.cancel()
        raise system.failure.result()
    return await task
