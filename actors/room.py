"""Agents from Python: ``async with greenroom.open() as room``."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

import msgspec

from greenroom.actors.app import open_house
from greenroom.actors.handle import Agent
from greenroom.actors.house_records import ModelCard, Status
from greenroom.actors.http import serve_http
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.reach import Reach
from greenroom.actors.remote import connect_house
from greenroom.actors.scene_handle import Scene, SceneOptions
from greenroom.actors.scene_messages import SceneInfo
from greenroom.runtime.agent_records import AgentInfo, Overflow, Share, SpawnRequest
from greenroom.runtime.inspect import SystemInfo
from greenroom.runtime.layers import load_settings
from greenroom.runtime.names import validate_name
from greenroom.runtime.scenario import Member, Scenario
from greenroom.runtime.scene_file import scenario_of
from greenroom.runtime.settings import Settings
from greenroom.runtime.system import System

READ_BYTES = 1 << 20


class Inspection(msgspec.Struct, frozen=True):
    """What goes on: in the house that the agents live in, and among the room's own actors."""

    house: Status
    actors: SystemInfo


class Room:
    """A model and its agents. ``model`` is what is served, ``actors`` runs actors of your own.

    The same class stands for a room in this process and for a server far away.
    """

    def __init__(self, house: Reach, actors: System) -> None:
        self._house = house
        self.actors = actors

    @property
    def model(self) -> ModelCard:
        """The served model."""
        return self._house.model

    async def spawn(
        self,
        name: str,
        *,
        system: str | None = None,
        model: str | None = None,
        ttl_s: float | None = None,
        overflow: Overflow | None = None,
        share: Share | None = None,
    ) -> Agent:
        """The agent of that name, made if there is none, with all that it remembers.

        ``system`` is its system prompt, ``model`` the model that it insists on. After ``ttl_s``
        seconds without a turn it is forgotten. ``overflow`` says what becomes of a history that
        outgrows the context window, ``share = "none"`` keeps its memory from other agents. What is
        left out stays as it is. Raises InvalidRequest for an illegal name or value, NotFound for a
        model that is not served, Conflict when the agent exists with another system prompt, model
        or ``share``.
        """
        request = SpawnRequest(
            namespace=self._house.namespace,
            name=validate_name(name),
            system=system,
            model=model,
            ttl_s=ttl_s,
            overflow=overflow,
            share=share,
        )
        info = await self._house.spawn(request)
        return Agent(self._house, info.name)

    def agent(self, name: str) -> Agent:
        """The agent of that name, without looking whether it is there. Raises InvalidRequest."""
        return Agent(self._house, validate_name(name))

    async def agents(self) -> list[AgentInfo]:
        """Every agent of this room, by name."""
        return await self._house.agents(self._house.namespace)

    async def scene(
        self,
        scene: str | Scenario,
        members: Sequence[Agent | Member] = (),
        **options: Unpack[SceneOptions],
    ) -> Scene:
        """A scene of that name, made if there is none, with all that has happened in it.

        Members are agents of this room, or described by ``Member``; the options are those of
        ``Scenario``, which may be given whole (``read_scenario`` reads one from a file). With
        neither it is one that is there. Raises InvalidRequest for what cannot be performed,
        Conflict when another scene has that name, NotFound when there is none.
        """
        scenes, namespace = self._house.scenes, self._house.namespace
        if isinstance(scene, str) and not members and not options:
            return Scene(scenes, namespace, (await scenes.info(namespace, scene)).name)
        if isinstance(scene, str):
            described = [
                m if isinstance(m, Member) else Member(name=m.name, agent=m.name) for m in members
            ]
            scene = scenario_of(scene, described, options)
        return Scene(scenes, namespace, (await scenes.create(namespace, scene)).name)

    async def scenes(self) -> list[SceneInfo]:
        """Every scene of this room, by name."""
        return await self._house.scenes.list(self._house.namespace)

    async def import_agent(
        self, source: str | Path | AsyncIterable[bytes], *, name: str | None = None
    ) -> Agent:
        """Take in an agent that was exported, under its own name or another.

        Raises Conflict for another model's memory and for a name that is taken, InvalidRequest for
        a file that is damaged or from a later greenroom.
        """
        chunks = _chunks(Path(source)) if isinstance(source, str | Path) else source
        info = await self._house.import_agent(self._house.namespace, name, chunks)
        return Agent(self._house, info.name)

    async def inspect(self) -> Inspection:
        """What goes on inside, at any time. Of a server it needs the administrator's key."""
        return Inspection(await self._house.status(), self.actors.inspect())


class LocalRoom(Room):
    """A room whose model is in this process."""

    def __init__(self, house: Playhouse, actors: System) -> None:
        super().__init__(house, actors)
        self._playhouse = house

    @asynccontextmanager
    async def serve(self, host: str | None = None, port: int | None = None) -> AsyncIterator[str]:
        """Open this room's HTTP door as well; gives its URL. ``port`` 0 takes a free one."""
        server = self._playhouse.settings.server
        host = server.host if host is None else host
        port = server.port if port is None else port
        async with serve_http(self._playhouse, host, port) as url:
            yield url


@asynccontextmanager
async def open_room(
    model: str | None = None, *, home: str | Path | None = None, **settings: Any
) -> AsyncIterator[LocalRoom]:
    """Load a model and wake its agents; leaving stops them, with everything durable.

    ``model`` as ``model.name`` in the settings; ``home`` is where models and memory are kept. Other
    settings are given with ``__`` for the dot: ``stage__max_batch_size=4``. Raises SettingsError,
    ModelUnavailable.
    """
    overrides = {key.replace("__", "."): str(value) for key, value in settings.items()}
    if model is not None:
        overrides["model.name"] = model
    if home is not None:
        overrides["home"] = str(home)
    loaded = await asyncio.to_thread(load_settings, overrides=overrides)
    async with open_settings(loaded.settings) as room:
        yield room


@asynccontextmanager
async def open_settings(settings: Settings, *, dark: bool = False) -> AsyncIterator[LocalRoom]:
    """The same for settings that are complete; ``dark`` and what it raises as ``open_house``."""
    # The room's own actors stop first: they may speak to agents to the end.
    async with open_house(settings, dark=dark) as house, System() as actors:
        yield LocalRoom(house, actors)


@asynccontextmanager
async def connect_room(
    url: str, *, key: str | None = None, admin_key: str | None = None
) -> AsyncIterator[Room]:
    """The agents of a running server. Raises ServerLost, Unauthorized, Forbidden."""
    async with connect_house(url, key=key, admin_key=admin_key) as house, System() as actors:
        yield Room(house, actors)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, READ_BYTES):
            yield chunk
    finally:
        await asyncio.to_thread(file.close)
