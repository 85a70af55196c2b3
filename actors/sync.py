"""The same agents for scripts and notebooks, without ``await``.

Each method waits in the calling thread while an event loop of the room's own, on another thread,
does the work; so it may be used where a loop runs already. What the methods do, give and raise is
written at their namesakes in ``greenroom.actors.handle`` and ``greenroom.actors.room``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Unpack, overload

from greenroom.actors.handle import Agent, Said, TurnOptions
from greenroom.actors.house_records import ModelCard
from greenroom.actors.loop_thread import LoopThread
from greenroom.actors.reply import Reply, Shaped, Stream
from greenroom.actors.scene_handle import SceneOptions
from greenroom.actors.scene_messages import SceneInfo
from greenroom.actors.sync_scene import SyncScene
from greenroom.actors.toolloop import ToolRun
from greenroom.runtime.agent_records import (
    AgentInfo,
    Forgotten,
    Heard,
    LogEntry,
    Overflow,
    Probe,
    Share,
)
from greenroom.runtime.records import TurnEvent
from greenroom.runtime.scenario import Member, Scenario

if TYPE_CHECKING:
    from greenroom.actors.room import Inspection, Room

T = TypeVar("T")


class SyncStream:
    """``Stream`` without ``await``: iterate once; leaving the loop cancels the turn."""

    def __init__(self, loop: LoopThread, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has come to its end. Raises NoReplyYet."""
        return self._stream.reply

    def events(self) -> Iterator[TurnEvent | ToolRun]:
        """Everything that happens; see ``Stream.events``."""
        return self._loop.iterate(self._stream.events())

    def __iter__(self) -> Iterator[str]:
        return self._loop.iterate(aiter(self._stream))


class SyncAgent:
    """``Agent`` without ``await``."""

    def __init__(self, loop: LoopThread, agent: Agent) -> None:
        self._loop = loop
        self._agent = agent
        self.name = agent.name

    def __repr__(self) -> str:
        return f"SyncAgent({self.name!r})"

    @overload
    def say(self, content: Said, **options: Unpack[TurnOptions]) -> Reply: ...

    @overload
    def say(
        self, content: Said, *, schema: type[T], **options: Unpack[TurnOptions]
    ) -> Shaped[T]: ...

    def say(
        self, content: Said, *, schema: type[T] | None = None, **options: Unpack[TurnOptions]
    ) -> Reply | Shaped[T]:
        """Say something and wait for the whole answer. Ctrl-C cancels the turn."""
        if schema is None:
            return self._loop.run(self._agent.say(content, **options))
        return self._loop.run(self._agent.say(content, schema=schema, **options))

    def stream(self, content: Said, **options: Unpack[TurnOptions]) -> SyncStream:
        """Say something and get the answer as it comes."""
        return SyncStream(self._loop, self._agent.stream(content, **options))

    def hear(self, content: str, *, name: str | None = None) -> None:
        """Tell it something that it need not answer."""
        self._loop.run(self._agent.hear(content, name=name))

    def heard(self, *, settled: bool = True) -> Heard:
        """Wait until all that it was told is durable."""
        return self._loop.run(self._agent.heard(settled=settled))

    def info(self) -> AgentInfo:
        """What is known of it without waking it."""
        return self._loop.run(self._agent.info())

    def fork(self, name: str, *, at: str | None = None) -> SyncAgent:
        """A new agent that remembers the same."""
        return SyncAgent(self._loop, self._loop.run(self._agent.fork(name, at=at)))

    def rollback(self, to: str) -> AgentInfo:
        """Take it back to a segment of its log."""
        return self._loop.run(self._agent.rollback(to))

    def log(self) -> tuple[LogEntry, ...]:
        """Its memory, segment by segment, oldest first."""
        return self._loop.run(self._agent.log())

    def pin(self, segment: str | None = None) -> str:
        """Keep a segment from eviction and collection."""
        return self._loop.run(self._agent.pin(segment))

    def unpin(self, segment: str | None = None) -> str:
        """Let go of a pin."""
        return self._loop.run(self._agent.unpin(segment))

    def probe(self, content: Said) -> Probe:
        """How much of a turn's prompt is remembered."""
        return self._loop.run(self._agent.probe(content))

    def export_to(self, path: str | Path) -> Path:
        """Write the agent and its memory to a file."""
        return self._loop.run(self._agent.export_to(path))

    def forget(self) -> Forgotten:
        """Erase it."""
        return self._loop.run(self._agent.forget())


class SyncRoom:
    """``Room`` without ``await``."""

    def __init__(self, loop: LoopThread, room: Room) -> None:
        self._loop = loop
        self._room = room

    @property
    def model(self) -> ModelCard:
        """The served model."""
        return self._room.model

    def spawn(
        self,
        name: str,
        *,
        system: str | None = None,
        model: str | None = None,
        ttl_s: float | None = None,
        overflow: Overflow | None = None,
        share: Share | None = None,
    ) -> SyncAgent:
        """The agent of that name, made if there is none."""
        spawned = self._room.spawn(
            name, system=system, model=model, ttl_s=ttl_s, overflow=overflow, share=share
        )
        return SyncAgent(self._loop, self._loop.run(spawned))

    def agent(self, name: str) -> SyncAgent:
        """The agent of that name, without looking whether it is there."""
        return SyncAgent(self._loop, self._room.agent(name))

    def agents(self) -> Sequence[AgentInfo]:
        """Every agent of this room, by name."""
        return self._loop.run(self._room.agents())

    def scene(
        self,
        scene: str | Scenario,
        members: Sequence[SyncAgent | Member] = (),
        **options: Unpack[SceneOptions],
    ) -> SyncScene:
        """A scene of that name, made if there is none."""
        known = [m if isinstance(m, Member) else Member(name=m.name, agent=m.name) for m in members]
        return SyncScene(self._loop, self._loop.run(self._room.scene(scene, known, **options)))

    def scenes(self) -> Sequence[SceneInfo]:
        """Every scene of this room, by name."""
        return self._loop.run(self._room.scenes())

    def import_agent(self, source: str | Path, *, name: str | None = None) -> SyncAgent:
        """Take in an agent that was exported."""
        return SyncAgent(self._loop, self._loop.run(self._room.import_agent(source, name=name)))

    def inspect(self) -> Inspection:
        """What goes on inside."""
        return self._loop.run(self._room.inspect())


@contextmanager
def in_step(make: Callable[[], AbstractAsyncContextManager[Room]]) -> Iterator[SyncRoom]:
    """The room that ``make`` gives, for callers without a loop; it closes with the block."""
    with LoopThread() as loop, loop.holding(make()) as room:
        yield SyncRoom(loop, room)
