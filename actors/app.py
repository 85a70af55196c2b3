"""The composition root: everything is made here, in order, and handed only what it needs."""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from greenroom.actors.agent import Company
from greenroom.actors.director import Director
from greenroom.actors.gpu import Emit, GpuActor
from greenroom.actors.house import ModelCard
from greenroom.actors.http import serve_http
from greenroom.actors.keeper import Keeper
from greenroom.actors.messages import (
    AgentKey,
    Count,
    Describe,
    DirectorMessage,
    ListAgents,
    ModelFacts,
    Turn,
    Wake,
    Whose,
)
from greenroom.actors.store import Store
from greenroom.runtime.catalog import ModelEntry, check_requested, load_catalog
from greenroom.runtime.channel import Channel
from greenroom.runtime.codec import DEFAULT_CODEC, Codec, codec_named
from greenroom.runtime.download import ensure_model
from greenroom.runtime.errors import ModelUnavailable, Unavailable
from greenroom.runtime.index import Index
from greenroom.runtime.loader import last_position_head, load, pick_device, pick_platform
from greenroom.runtime.logs import start_logging
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.pace import StageCounters
from greenroom.runtime.records import AgentInfo, TurnEvent, TurnRequest
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import Settings
from greenroom.runtime.spec import extract_spec
from greenroom.runtime.stage import Stage, StageLimits
from greenroom.runtime.supervise import Decision, Supervision, default_decider
from greenroom.runtime.system import System
from greenroom.runtime.text import Text
from greenroom.runtime.vault import Vault

T = TypeVar("T")


class Playhouse:
    """One loaded model with its agents: the ``House`` behind every door."""

    def __init__(
        self,
        settings: Settings,
        entry: ModelEntry,
        company: Company,
        director: Ref[DirectorMessage],
        failure: "asyncio.Future[BaseException]",
    ) -> None:
        self.settings = settings
        self.model = ModelCard(
            entry.name, entry.hub_id, company.facts.context_window, int(time.time())
        )
        self._entry = entry
        self._company = company
        self._director = director
        self._draining = False
        self.failure = failure  # set when no supervisor could help

    def ready(self) -> bool:
        """Whether turns are taken."""
        return not self._draining

    def drain(self) -> None:
        """Take no new turns; those under way go on."""
        self._draining = True

    def resolve_model(self, name: str | None) -> str:
        """The served model's catalog name. Raises NotFound where ``name`` means another."""
        check_requested(self._entry, name)
        return self._entry.name

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        """Hand a turn to its agent; see ``House``."""
        if self._draining:
            raise Unavailable("the server is shutting down", retry_after_s=5.0)
        key = await self._who(request)
        agent = await self._director.ask(Wake(key))
        reply: Channel[TurnEvent] = Channel(self.settings.actors.channel_capacity)
        agent.tell(Turn(request, reply, time.perf_counter()))
        return reply

    async def enrol(self, name: str, system: str | None) -> None:
        """Make the agent unless it is there. Raises Conflict for another system prompt."""
        await self._director.ask(Wake(AgentKey("", name), system))

    async def agents(self, namespace: str) -> list[AgentInfo]:
        """Every agent of the namespace, by name."""
        return list(await self._company.store.ask(ListAgents(namespace)))

    async def counters(self) -> StageCounters:
        """What the stage has done so far."""
        return await self._company.gpu.ask(Count())

    async def _who(self, request: TurnRequest) -> AgentKey:
        """The agent that is named, else whoever remembers the history so far, else a new one."""
        if request.agent is not None:
            return AgentKey(request.namespace, request.agent)
        text = self._company.facts.text
        rendered = await asyncio.to_thread(text.render, request.messages)
        tokens = await asyncio.to_thread(text.encode, rendered)
        known = await self._company.store.ask(Whose(request.namespace, tokens, rendered))
        return known or AgentKey(request.namespace, f"anon-{secrets.token_hex(6)}")


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[Playhouse]:
    """Bring the model, start the actors, and stop them in reverse order at the end.

    Raises ModelUnavailable, SettingsError, and what the store raises when it is taken.
    """
    # Encoding, decoding and files; they leave the GIL alone, so a few threads are enough.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="greenroom-io") as pool:
        device = pick_device(settings.model.device)
        entry = load_catalog().resolve(settings.model.name, pick_platform(device))
        path = await asyncio.to_thread(ensure_model, entry, settings.models_path)
        index = await asyncio.to_thread(Index, settings.store_path)
        async with System() as system:
            gpu = system.spawn(
                "gpu",
                partial(GpuActor, partial(make_stage, settings, path, pool)),
                supervision=_vital(),
            )
            facts = await _unless_failed(system, gpu.ask(Describe()))
            store = system.spawn(
                "store", partial(Store, index, facts.fingerprint), supervision=_vital()
            )
            vault = Vault(settings.store_path)
            keeper = system.spawn(
                "keeper",
                partial(Keeper, vault, settings.memory.cache_budget_mb << 20, pool),
                supervision=_vital(),
            )
            company = Company(
                gpu,
                keeper,
                store,
                facts,
                _codec(settings).label,
                settings.memory.durability == "turn",
            )
            director = system.spawn(
                "director",
                partial(
                    Director,
                    company,
                    MailboxSpec(settings.actors.mailbox_capacity),
                    settings.actors.passivate_after_s,
                ),
                supervision=_vital(),
            )
            yield Playhouse(settings, entry, company, director, system.failure)


def make_stage(
    settings: Settings, path: Path, pool: Executor, emit: Emit
) -> tuple[Stage, ModelFacts]:
    """Load the model and set the stage, on the thread that will own MLX."""
    device = pick_device(settings.model.device)
    loaded = load(path, device=device, sidecars=settings.home_path / "fingerprints")
    spec = extract_spec(loaded.model, loaded.config)
    limits = StageLimits(
        max_batch_size=settings.stage.max_batch_size if settings.stage.scheduler else 1,
        chunk_tokens=settings.stage.chunk_tokens,
        schedule=settings.stage.schedule,
        max_decode_gap_s=settings.stage.max_decode_gap_ms / 1e3,
    )
    advice = _generation_config(path)
    facts = ModelFacts(
        fingerprint=loaded.fingerprint,
        context_window=loaded.context_window,
        text=Text(loaded.tokenizer),
        spec=spec,
        temperature=float(advice.get("temperature", 1.0)),
        top_p=float(advice.get("top_p", 1.0)),
    )
    model = last_position_head(loaded.model)
    return Stage(model, spec, _codec(settings), limits, emit, pool), facts


def serve(settings: Settings) -> int:
    """Serve over HTTP until SIGINT or SIGTERM; returns the exit status."""
    start_logging(settings.log)
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with open_house(settings) as house:
        async with serve_http(house, settings.server.host, settings.server.port) as url:
            print(f"greenroom serves {house.model.name} at {url}", file=sys.stderr, flush=True)
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


def _codec(settings: Settings) -> Codec:
    name = settings.memory.codec
    return codec_named(DEFAULT_CODEC if name == "auto" else name)


def _generation_config(path: Path) -> dict[str, float]:
    file = path / "generation_config.json"
    config = json.loads(file.read_text()) if file.exists() else {}
    return {k: config[k] for k in ("temperature", "top_p") if config.get(k) is not None}


def _vital() -> Supervision:
    """For the actors that nothing works without: when restarts do not help, the system has failed."""
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
