"""The reaper: has agents forgotten that nobody has used for as long as they may be unused."""

import contextlib
from typing import assert_never

from greenroom.actors.agent_messages import Vanish
from greenroom.actors.director_messages import DirectorMessage, Wake
from greenroom.actors.reaper_messages import ReaperMessage, Sweep
from greenroom.actors.store_messages import Overdue, StoreMessage
from greenroom.runtime.actor import Actor
from greenroom.runtime.errors import NotFound, Unavailable
from greenroom.runtime.ref import Ref

ROUND_S = 5.0
"""Seconds between two looks: by how much an agent may outlive its time."""

PATIENCE_S = 60.0
"""How long it waits for one that is in the middle of a turn, and so not unused at all."""


class Reaper(Actor[ReaperMessage]):
    """Looks at the store's list every few seconds, and once at the start."""

    def __init__(self, store: Ref[StoreMessage], director: Ref[DirectorMessage]) -> None:
        self._store = store
        self._director = director

    async def on_start(self) -> None:
        """Begin at once: time has gone on while nobody was here."""
        self.context.timer(0.0, Sweep())

    async def handle(self, message: ReaperMessage) -> None:
        """Look, and look again later."""
        match message:
            case Sweep():
                await self._sweep()
                self.context.timer(ROUND_S, Sweep())
            case _:
                assert_never(message)

    async def _sweep(self) -> None:
        for key in await self._store.ask(Overdue()):
            # Gone already, busy or full: there is another round.
            with contextlib.suppress(NotFound, Unavailable):
                agent = await self._director.ask(Wake(key, enrol=False))
                gone = await agent.ask(Vanish(overdue=True), timeout=PATIENCE_S)
                self.context.log.info("an agent's time was over: %s", gone)
