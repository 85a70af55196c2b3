"""The part of the house that changes what plays."""

from greenroom.actors.changeover import Changeover
from greenroom.actors.house_records import Repertoire
from greenroom.actors.opening import Play
from greenroom.actors.production import Production
from greenroom.actors.whole import whole
from greenroom.runtime.errors import Conflict, Unavailable

CHANGE_S = 30.0
"""A hint for callers who come while a model is loaded."""


class Stagehand:
    """Holds the ``production`` that plays, or was the last to, and replaces it.

    While it does, whoever asks for anything is told to come back.
    """

    def __init__(
        self, production: Production, changeover: Changeover, limit_s: float, *, dark: bool = False
    ) -> None:
        """``limit_s``: seconds that turns have to end in before their production is struck. On a
        ``dark`` stage it is to be looked at only."""
        self.production = production
        self._is_up = not dark
        self._changeover = changeover
        self._limit_s = limit_s
        self._busy = False
        self._changing = False

    @property
    def plays(self) -> bool:
        """Whether a model is loaded, and stays so."""
        return self._is_up and not self._changing

    def check(self) -> None:
        """Raise the retryable ``Unavailable`` unless a model is loaded."""
        if self._changing:
            raise Unavailable("another model is being loaded", retry_after_s=CHANGE_S)
        if not self._is_up:
            raise Unavailable("no model is loaded", retry_after_s=CHANGE_S)

    async def swap(self, name: str) -> None:
        """Strike what plays and put up another model; what plays already is left alone.

        Raises ``NotFound`` and ``ModelUnavailable`` with everything as it was: a model that does
        not load gives way to the one before it. ``Conflict`` while another change is under way.
        """
        self._begin()
        try:
            play = await self._changeover.bring(name)
            if not self._is_up or self.production.play != play:
                await whole(self._replace(play))
        finally:
            self._busy = self._changing = False

    async def offload(self) -> None:
        """Strike what plays, and put up nothing."""
        self._begin()
        try:
            await whole(self._strike())
        finally:
            self._busy = self._changing = False

    async def let_go(self) -> None:
        """Drop what is in memory only to be quick."""
        self.check()
        await self.production.let_go()

    async def repertoire(self) -> tuple[Repertoire, ...]:
        """What could play."""
        return await self._changeover.repertoire()

    def _begin(self) -> None:
        if self._busy:
            raise Conflict("the model is being changed already", code="changing")
        self._busy = True

    async def _replace(self, play: Play) -> None:
        before = self.production.play if self._is_up else None
        await self._strike()
        try:
            await self._put_up(play)
        except Exception:
            if before is not None:
                await self._put_up(before)
            raise

    async def _put_up(self, play: Play) -> None:
        self.production = await self._changeover.put_up(play)
        self._is_up = True

    async def _strike(self) -> None:
        # Only from here on: a model that has to be fetched first keeps nobody waiting.
        self._changing = True
        if self._is_up:
            self._is_up = False
            await self.production.strike(self._limit_s)
