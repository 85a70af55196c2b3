"""Agents from Python: ``async with greenroom.open() as room``."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from greenroom.actors.app import open_house
from greenroom.actors.http import serve_http
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.scene_handle import Scene
from greenroom.runtime.layers import load_settings
from greenroom.runtime.names import validate_name
from greenroom.runtime.records import (
    AgentInfo,
    ChatMessage,
    FinishReason,
    Heard,
    HearRequest,
    Sampling,
    TextDelta,
    Timings,
    TurnDone,
    TurnRequest,
    Usage,
)
from greenroom.runtime.scenario import Member, Order, Phase, Scenario


class Reply(msgspec.Struct, frozen=True):
    """A whole answer. ``usage`` counts tokens, ``timings`` milliseconds."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None


class Agent:
    """A named agent of a room. It is only a name: any number of these may stand for one agent."""

    def __init__(self, house: Playhouse, name: str) -> None:
        self._house = house
        self.name = name

    async def say(
        self,
        content: str,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
    ) -> Reply:
        """Say something and wait for the whole answer, which is durable when this returns.

        ``max_tokens`` ``None`` means as many as the context window leaves. Raises InvalidRequest
        (the prompt does not fit, ...), MailboxFull and other Unavailable errors (try again).
        """
        async with opened(self._house, self._request(content, max_tokens, stop, sampling)) as turn:
            done = await turn.done()
        return Reply(done.text, done.finish_reason, done.usage, done.timings, done.head)

    async def stream(
        self,
        content: str,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        sampling: Sampling | None = None,
    ) -> AsyncIterator[str]:
        """Say something and get the answer as it comes, piece by piece.

        Closing the iterator (``aclosing``) cancels the turn, which is then not remembered. Raises
        as ``say``.
        """
        async with opened(self._house, self._request(content, max_tokens, stop, sampling)) as turn:
            async for event in turn:
                match event:
                    case TextDelta(text) if text:
                        yield text
                    case TurnDone():
                        return
                    case _:  # a token whose character is not complete yet
                        pass

    async def hear(self, content: str, *, name: str | None = None) -> None:
        """Tell it something that it need not answer; returns at once.

        It is taken in in the background, so that the next answer begins as soon as if it had been
        known all along. ``name`` is whose words these are. Until it is durable (``heard``) a crash
        may lose it. Raises InvalidRequest (empty, longer than the context window), MailboxFull.
        """
        await self._house.hear(
            HearRequest(
                agent=self.name, content=content, name=name, namespace=self._house.namespace
            )
        )

    async def heard(self, *, settled: bool = True) -> Heard:
        """Wait until all that it was told is durable; without ``settled`` just see how far it is.

        Raises InvalidRequest when something did not fit the context window and was dropped.
        """
        return await self._house.heard(self._house.namespace, self.name, settled=settled)

    def _request(
        self, content: str, max_tokens: int | None, stop: Sequence[str], sampling: Sampling | None
    ) -> TurnRequest:
        return TurnRequest(
            messages=(ChatMessage("user", content),),
            mode="say",
            agent=self.name,
            namespace=self._house.namespace,
            max_tokens=max_tokens,
            stop=tuple(stop),
            sampling=sampling or Sampling(),
        )


class Room:
    """A model and its agents, in this process."""

    def __init__(self, house: Playhouse) -> None:
        self._house = house

    async def spawn(self, name: str, *, system: str | None = None) -> Agent:
        """The agent of that name, made if there is none, with all that it remembers.

        ``system`` is its system prompt. Raises InvalidRequest for an illegal name, Conflict when
        it exists with another system prompt.
        """
        name = validate_name(name)
        await self._house.enrol(name, system)
        return Agent(self._house, name)

    async def scene(
        self,
        scene: str | Scenario,
        members: Sequence[Agent | Member] = (),
        *,
        phases: Sequence[Phase] = (),
        order: Order = "round_robin",
        moderator: str | None = None,
        max_turns: int | None = None,
        stop_words: Sequence[str] = (),
        max_tokens: int = 96,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> Scene:
        """A scene of that name, made if there is none, with all that has happened in it.

        Members are agents of this room, or described by ``Member``; the other arguments are those
        of ``Scenario``, which may be given whole (``read_scenario`` reads one from a file). With
        neither it is one that is there. Raises InvalidRequest for what cannot be performed,
        Conflict when another scene has that name, NotFound when there is none.
        """
        scenes, namespace = self._house.scenes, self._house.namespace
        if isinstance(scene, str) and not members:
            return Scene(scenes, namespace, (await scenes.info(namespace, scene)).name)
        if isinstance(scene, str):
            scene = Scenario(
                name=scene,
                members=tuple(
                    m if isinstance(m, Member) else Member(name=m.name, agent=m.name)
                    for m in members
                ),
                phases=tuple(phases),
                order=order,
                moderator=moderator,
                max_turns=max_turns,
                stop_words=tuple(stop_words),
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
            )
        return Scene(scenes, namespace, (await scenes.create(namespace, scene)).name)

    async def agents(self) -> list[AgentInfo]:
        """Every agent of this room, by name."""
        return await self._house.agents(self._house.namespace)

    @asynccontextmanager
    async def serve(self, host: str | None = None, port: int | None = None) -> AsyncIterator[str]:
        """Open this room's HTTP door as well; gives its URL. ``port`` 0 takes a free one."""
        server = self._house.settings.server
        host = server.host if host is None else host
        port = server.port if port is None else port
        async with serve_http(self._house, host, port) as url:
            yield url


@asynccontextmanager
async def open_room(
    model: str | None = None, *, home: str | Path | None = None, **settings: Any
) -> AsyncIterator[Room]:
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
    async with open_house(loaded.settings) as house:
        yield Room(house)
