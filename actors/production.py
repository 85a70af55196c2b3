"""What plays now: one model on its stage, with the actors that work for it."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from greenroom.actors.company import Company
from greenroom.actors.custodian import Custodian, quota_of
from greenroom.actors.custodian_messages import CustodianMessage, Wrote
from greenroom.actors.director import Director
from greenroom.actors.director_messages import DirectorMessage
from greenroom.actors.gpu import Emit, Flush, GpuActor, Patience
from greenroom.actors.gpu_messages import Back, Describe, GpuMessage, ModelFacts
from greenroom.actors.keeper import Keeper
from greenroom.actors.keeper_messages import KeeperMessage, Shed
from greenroom.actors.meter import Meter
from greenroom.actors.reaper import Reaper
from greenroom.actors.reaper_messages import ReaperMessage
from greenroom.actors.store import Store
from greenroom.actors.threads import Threads
from greenroom.runtime.admission import Backing
from greenroom.runtime.audit import recall
from greenroom.runtime.catalog import ModelEntry
from greenroom.runtime.errors import ActorStopped, MailboxFull, ModelUnavailable, Unavailable
from greenroom.runtime.hot import room_for_copies
from greenroom.runtime.index import Index
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import Settings
from greenroom.runtime.stage import Stage
from greenroom.runtime.supervise import Decision, Supervision, default_decider
from greenroom.runtime.system import System
from greenroom.runtime.vault import Vault
from greenroom.runtime.volatile import Volatile

# Whom everybody asks: a thousand agents at once wait in line there. What may pile up is bounded by
# the agents' own mailboxes, and by the doors.
PATIENT = MailboxSpec(when_full="wait")
SetStage = Callable[["Play", Emit, Flush], tuple[Stage, ModelFacts]]
"""Loads a model and sets the stage, on the thread that will own MLX."""


class Play(msgspec.Struct, frozen=True):
    """A model that can be put up: its catalog entry, its files, and its codec's label."""

    entry: ModelEntry
    path: Path
    codec: str


class Ground(msgspec.Struct, frozen=True):
    """What stands whatever is played: the memory on disk, threads for it, and the meter."""

    vault: Vault
    index: Index
    threads: Threads
    meter: Meter


class Production:
    """One loaded model and its actors. ``strike`` takes all of it down; what is durable stays."""

    def __init__(
        self,
        play: Play,
        company: Company,
        director: Ref[DirectorMessage],
        reaper: Ref[ReaperMessage],
        system: System,
    ) -> None:
        self.play = play
        self.company = company
        self.director = director
        self._reaper = reaper
        self._system = system

    async def strike(self, limit_s: float) -> None:
        """Stop the actors: turns that run or wait end first, within ``limit_s`` seconds; those
        that do not are given up, and their callers get the retryable ``ActorStopped``."""
        company = self.company
        await self._system.stop(self._reaper, drain=False)
        await self._system.stop(self.director, limit_s)
        for ref in (company.custodian, company.keeper, company.store, company.gpu):
            await self._system.stop(ref)

    async def let_go(self) -> None:
        """Drop what is in memory only to be quick: decoded copies and encoded segments."""
        # The keeper then tells the stage how much copies may take again.
        self.company.gpu.tell(Back(Backing(copies=0)))
        self.company.keeper.tell(Shed(1 << 62))


class _Opening:
    """How the GPU actor is supervised: a model that does not load is not loaded again."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.succeeded = False

    def decide(self, error: BaseException) -> Decision:
        if self.succeeded:
            return _vital_decider(error)
        self.error = error
        return Decision.STOP


async def put_up(
    system: System, settings: Settings, ground: Ground, play: Play, set_stage: SetStage
) -> Production:
    """Spawn the actors, in the order in which they need each other.

    Raises what loading raises, with nothing of the production left.
    """
    opening = _Opening()
    patience = Patience(settings.memory.release_after_s, settings.stage.memory_wait_s)

    def relieve(num_bytes: int) -> None:
        with suppress(MailboxFull, ActorStopped):
            keeper.tell(Shed(num_bytes))

    gpu: Ref[GpuMessage] = system.spawn(
        "gpu",
        partial(GpuActor, partial(set_stage, play), [], patience, relieve),
        supervision=Supervision(decider=opening.decide, exhausted=Decision.ESCALATE),
    )
    try:
        facts = await gpu.ask(Describe())
    except Unavailable as error:
        await system.stop(gpu)
        raise opening.error or error from None
    opening.succeeded = True
    store = system.spawn(
        "store",
        partial(Store, ground.index, facts.fingerprint, partial(recall, ground.vault)),
        supervision=vital(),
        mailbox=PATIENT,
    )
    budget_bytes = settings.memory.cache_budget_mb << 20

    def back(hot: int, pending: int) -> None:
        # Full or restarting: the next turn tells it again.
        with suppress(MailboxFull, ActorStopped):
            gpu.tell(Back(Backing(room_for_copies(budget_bytes, hot), hot, pending)))

    def grown(num_bytes: int | None) -> None:
        with suppress(MailboxFull, ActorStopped):  # the next round counts anew
            custodian.tell(Wrote(num_bytes))

    keeper: Ref[KeeperMessage] = system.spawn(
        "keeper",
        partial(
            Keeper,
            ground.vault,
            facts.spec,
            budget_bytes,
            ground.threads.write,
            ground.threads.read,
            back,
            grown,
        ),
        supervision=vital(),
    )
    custodian: Ref[CustodianMessage] = system.spawn(
        "custodian",
        partial(
            Custodian,
            store,
            keeper,
            ground.vault,
            ground.threads.read,
            quota_of(settings.memory),
            max(facts.spec.windows, default=0),
        ),
        supervision=vital(),
    )
    company = Company(
        gpu=gpu,
        keeper=keeper,
        store=store,
        custodian=custodian,
        facts=facts,
        codec=play.codec,
        meter=ground.meter,
        durable_turns=settings.memory.durability == "turn",
        volatile=Volatile(settings.template.volatile),
        overflow=settings.agents.overflow,
        overflow_keep=settings.agents.overflow_keep,
    )
    mailbox = MailboxSpec(settings.actors.mailbox_capacity)
    director = system.spawn(
        "director",
        partial(Director, company, mailbox, settings.actors.passivate_after_s),
        supervision=vital(),
        mailbox=PATIENT,
    )
    reaper: Ref[ReaperMessage] = system.spawn(
        "reaper", partial(Reaper, store, director), supervision=vital()
    )
    return Production(play, company, director, reaper, system)


def vital() -> Supervision:
    """For actors that nothing works without: when restarts do not help, the system has failed."""
    return Supervision(decider=_vital_decider, exhausted=Decision.ESCALATE)


def _vital_decider(error: BaseException) -> Decision:
    # Loading again would fail again.
    return Decision.ESCALATE if isinstance(error, ModelUnavailable) else default_decider(error)
