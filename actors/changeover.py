"""Changing what plays: which models there are, and one production after the other."""

import asyncio
from collections.abc import Callable

from greenroom.actors.ground import Ground
from greenroom.actors.house_records import Repertoire
from greenroom.actors.opening import OpenStage, Play
from greenroom.actors.production import Production, put_up
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.settings import Settings
from greenroom.runtime.shelf import find_model
from greenroom.runtime.system import System

Bring = Callable[[str], Play]
"""From a model's name to its files, fetched if need be; blocks. Raises ``NotFound`` and
``ModelUnavailable``."""


class Changeover:
    """Puts up productions on one ground, one at a time."""

    def __init__(
        self,
        system: System,
        settings: Settings,
        ground: Ground,
        bring: Bring,
        open_stage: OpenStage,
    ) -> None:
        self._system = system
        self._settings = settings
        self._ground = ground
        self._bring = bring
        self._open_stage = open_stage

    async def bring(self, name: str) -> Play:
        """The model of that name, ready to be loaded; see ``Bring``."""
        return await asyncio.to_thread(self._bring, name)

    async def put_up(self, play: Play) -> Production:
        """Load it. Raises what loading raises, with nothing left behind."""
        return await put_up(self._system, self._settings, self._ground, play, self._open_stage)

    async def repertoire(self) -> tuple[Repertoire, ...]:
        """The catalog's models, and which of them are on this disk."""
        return await asyncio.to_thread(_repertoire, self._settings)


def _repertoire(settings: Settings) -> tuple[Repertoire, ...]:
    entries = load_catalog().entries.values()
    return tuple(
        Repertoire(
            name=entry.name,
            title=entry.title,
            hf_id=entry.hub_id,
            on_disk=find_model(entry, settings.models_path) is not None,
        )
        for entry in entries
    )
