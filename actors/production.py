"""What plays now: one model on its stage, with the actors that work for it."""

from contextlib import suppress
from functools import partial

from greenroom.actors.backstage import backstage
from greenroom.actors.company import Company
from greenroom.actors.director import Director
from greenroom.actors.director_messages import DirectorMessage
from greenroom.actors.gpu_messages import Back
from greenroom.actors.ground import Ground
from greenroom.actors.keeper_messages import Shed
from greenroom.actors.opening import OpenStage, Play
from greenroom.actors.reaper import Reaper
from greenroom.actors.reaper_messages import ReaperMessage
from greenroom.actors.vital import PATIENT, vital
from greenroom.runtime.admission import Backing
from greenroom.runtime.errors import ActorStopped, MailboxFull
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.ref import Ref
from greenroom.runtime.settings import Settings
from greenroom.runtime.system import System
from greenroom.runtime.volatile import Volatile


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


async def put_up(
    system: System, settings: Settings, ground: Ground, play: Play, open_stage: OpenStage
) -> Production:
    """Spawn the actors, in the order in which they need each other.

    Raises what loading raises, with nothing of the production left.
    """

    def relieve(num_bytes: int) -> None:
        with suppress(MailboxFull, ActorStopped):
            keeper.tell(Shed(num_bytes))

    gpu, facts = await open_stage(system, play, relieve)
    store, keeper, custodian = backstage(system, settings.memory, ground, facts, gpu)
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
