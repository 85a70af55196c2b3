"""The composition root: everything is made here, in order, and handed only what it needs."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import uvloop

from greenroom.actors.changeover import Changeover
from greenroom.actors.dark_stage import open_dark
from greenroom.actors.gpu import Emit, Flush, Patience
from greenroom.actors.gpu_messages import ModelFacts
from greenroom.actors.ground import Ground
from greenroom.actors.meter import Meter
from greenroom.actors.opening import OpenStage, Play, open_stage
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.scene_messages import TheatreMessage
from greenroom.actors.scribe import Scribe
from greenroom.actors.stagehand import Stagehand
from greenroom.actors.theatre import Scenes, Theatre
from greenroom.actors.threads import Threads
from greenroom.actors.vital import vital
from greenroom.runtime.catalog import ModelEntry, load_catalog
from greenroom.runtime.claims import check_claims
from greenroom.runtime.codec import DEFAULT_CODEC, Codec, codec_named
from greenroom.runtime.download import ensure_model
from greenroom.runtime.errors import GreenroomError, StoreUnusable
from greenroom.runtime.head import last_position_head
from greenroom.runtime.host import chunk_lanes, memory_limit
from greenroom.runtime.index import Index
from greenroom.runtime.ledger import Ledger
from greenroom.runtime.limits import StageLimits
from greenroom.runtime.loader import (
    LoadedModel,
    load,
    pick_device,
    pick_platform,
)
from greenroom.runtime.logs import start_logging
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.open_files import allow_many_sockets
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import Settings
from greenroom.runtime.spec import extract_spec
from greenroom.runtime.stage import Stage
from greenroom.runtime.system import System
from greenroom.runtime.text import Text
from greenroom.runtime.trial import record, serves_rows_together
from greenroom.runtime.vault import Vault

log = logging.getLogger("greenroom.stage")


@asynccontextmanager
async def open_house(settings: Settings, *, dark: bool = False) -> AsyncIterator[Playhouse]:
    """Bring the model, start the actors, and stop them in reverse order at the end.

    With a ``dark`` stage the model is not loaded: agents can be looked at and tended, and whatever
    needs the model raises Unavailable.

    Raises ModelUnavailable, SettingsError, StoreUnusable, and StoreBusy when another process has
    the store.
    """
    play, ground, ledger = await asyncio.to_thread(_prepare, settings)
    scribe = Scribe(ledger)
    try:
        async with System() as system:
            house, theatre = await _people(system, settings, ground, play, scribe, dark=dark)
            try:
                yield house
            finally:
                # First: scenes need their agents to the end, who may have come later (a swap).
                await system.stop(theatre)
    finally:
        await ground.clear_stages()
        await scribe.close()
        await asyncio.to_thread(ledger.close)
        await asyncio.to_thread(ground.threads.stop)
        await asyncio.to_thread(ground.index.close)


def _prepare(settings: Settings) -> tuple[Play, Ground, Ledger]:
    play = bring(settings, settings.model.name)
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
    return play, Ground(vault, index, Threads.start(), Meter(), []), ledger


def bring(settings: Settings, name: str) -> Play:
    """The model's files, fetched if need be. Raises NotFound, ModelUnavailable. Blocking."""
    platform = pick_platform(pick_device(settings.model.device))
    entry = load_catalog().resolve(name, platform)
    return Play(entry, ensure_model(entry, settings.models_path), _codec(settings, entry).label)


async def _people(
    system: System, settings: Settings, ground: Ground, play: Play, scribe: Scribe, *, dark: bool
) -> tuple[Playhouse, Ref[TheatreMessage]]:
    """Put up the first production, and bring in whoever stays when it is replaced."""
    stage = _dark(settings) if dark else _lit(settings, ground)
    changeover = Changeover(system, settings, ground, partial(bring, settings), stage)
    production = await changeover.put_up(play)
    hand = Stagehand(production, changeover, settings.server.drain_s, dark=dark)
    mailbox = MailboxSpec(settings.actors.mailbox_capacity)

    def make_theatre() -> Theatre:
        return Theatre(scribe, house, mailbox, settings.actors.passivate_after_s)

    theatre = system.spawn("theatre", make_theatre, supervision=vital())
    scenes = Scenes(theatre, scribe, settings.actors.channel_capacity)
    house = Playhouse(settings, hand, system, scenes)
    return house, theatre


def _lit(settings: Settings, ground: Ground) -> OpenStage:
    def set_stage(play: Play, emit: Emit, flush: Flush) -> tuple[Stage, ModelFacts]:
        decode = ground.threads.decode
        return make_stage(settings, play.entry, play.path, decode, emit, flush)

    patience = Patience(settings.memory.release_after_s, settings.stage.memory_wait_s)
    return partial(open_stage, set_stage, patience, ground.stages)


def _dark(settings: Settings) -> OpenStage:
    def look(play: Play) -> ModelFacts:
        return _facts(_load(settings, play.entry, play.path, lazy=True), play.entry, play.path)

    return partial(open_dark, look)


def make_stage(
    settings: Settings,
    entry: ModelEntry,
    path: Path,
    pool: Executor | None,
    emit: Emit,
    flush: Flush = lambda: None,
) -> tuple[Stage, ModelFacts]:
    """Load the model and set the stage, on the thread that will own MLX."""
    loaded = _load(settings, entry, path)
    facts = _facts(loaded, entry, path)
    stage = settings.stage
    max_batch_size, max_rows = (stage.max_batch_size, stage.max_rows) if stage.scheduler else (1, 1)
    verdict = record(settings.home_path / "trials", loaded.fingerprint, loaded.device)
    if max(max_batch_size, max_rows) > 1 and not serves_rows_together(loaded.model, verdict):
        log.warning(
            "%s gives other logits in a batch than alone (mlx-lm's fault): it is served one "
            "sequence at a time, as with stage.max_batch_size = 1",
            entry.name,
        )
        max_batch_size = max_rows = 1
    limits = StageLimits(
        max_batch_size=max_batch_size,
        chunk_tokens=settings.stage.chunk_tokens,
        schedule=settings.stage.schedule,
        max_decode_gap_s=settings.stage.max_decode_gap_ms / 1e3,
        resident_bytes=min(settings.memory.resident_budget_mb, settings.memory.cache_budget_mb)
        << 20,
        memory_bytes=settings.stage.memory_budget_mb << 20 or memory_limit(),
        max_rows=max_rows,
        max_row_cost=settings.stage.max_row_cost,
    )
    for line in facts.text.report.lines():
        log.info("the chat template of %s: %s", entry.name, line)
    model = last_position_head(loaded.model)
    codec = _codec(settings, entry)
    lanes = chunk_lanes()
    return Stage(model, facts.spec, codec, limits, emit, pool, flush=flush, lanes=lanes), facts


def _load(settings: Settings, entry: ModelEntry, path: Path, *, lazy: bool = False) -> LoadedModel:
    return load(
        path,
        device=pick_device(settings.model.device),
        context_window=entry.context_window,
        sidecars=settings.home_path / "fingerprints",
        lazy=lazy,
    )


def _facts(loaded: LoadedModel, entry: ModelEntry, path: Path) -> ModelFacts:
    spec = extract_spec(loaded.model, loaded.config)
    check_claims(entry.cache, spec)
    advice = _generation_config(path)
    return ModelFacts(
        fingerprint=loaded.fingerprint,
        context_window=loaded.context_window,
        text=Text(loaded.tokenizer),
        spec=spec,
        temperature=float(advice.get("temperature", 1.0)),
        top_p=float(advice.get("top_p", 1.0)),
    )


def announce_plainly(model: str, url: str) -> None:
    """Say on standard error that the agents are at home."""
    print(f"greenroom serves {model} at {url}", file=sys.stderr, flush=True)


def serve(settings: Settings, announce: Callable[[str, str], None] = announce_plainly) -> int:
    """Serve over HTTP until SIGINT or SIGTERM; returns the exit status.

    ``announce`` is told the model's name and the URL once turns are taken. A second signal ends
    the process at once.
    """
    start_logging(settings.log)
    allow_many_sockets()
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
    # While the model loads: it takes a third of a second.
    importing = asyncio.ensure_future(asyncio.to_thread(import_module, "greenroom.actors.http"))
    async with (
        open_house(settings) as house,
        (await importing).serve_http(house, server.host, server.port) as url,
    ):
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
