"""The theatre: finds or makes scenes and supervises them; the doors ask for scenes here."""

import secrets
from functools import partial
from typing import assert_never
from unicodedata import normalize

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.director import child_name
from greenroom.actors.players import Agency
from greenroom.actors.scene import SceneActor
from greenroom.actors.scene_messages import (
    DropScene,
    FindScene,
    HoldVote,
    Look,
    MakeScene,
    Perform,
    Read,
    SceneEvent,
    SceneInfo,
    SceneMessage,
    Tell,
    TheatreMessage,
    Watch,
)
from greenroom.actors.scribe import Scribe
from greenroom.runtime.actor import Actor
from greenroom.runtime.ballot import Tally
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import GreenroomError, NotFound
from greenroom.runtime.ledger import SceneRow
from greenroom.runtime.mailbox import MailboxSpec
from greenroom.runtime.ref import Ref
from greenroom.runtime.scenario import Scenario, Vote
from greenroom.runtime.scene_file import checked
from greenroom.runtime.transcript import Counted, Entry, Line


class Theatre(Actor[TheatreMessage]):
    """Every scene is its child: one that crashes is started again from the ledger."""

    children_stop = "together"

    def __init__(
        self, scribe: Scribe, house: Agency, mailbox: MailboxSpec, passivate_after_s: float
    ) -> None:
        self._scribe = scribe
        self._house = house
        self._mailbox = mailbox
        self._passivate_after_s = passivate_after_s

    async def handle(self, message: TheatreMessage) -> object:
        """Answer from the ledger."""
        match message:
            case FindScene(namespace, name):
                return self._spawn(await self._row(namespace, name))
            case MakeScene(namespace, scenario):
                await self._scribe.create(namespace, scenario, secrets.token_hex(8))
            case DropScene(namespace, name):
                row = await self._row(namespace, name)
                await self.context.system.stop(self._spawn(row), deadline_s=5.0, drain=False)
                await self._scribe.delete(row.uid)
            case _:
                assert_never(message)
        return None

    async def _row(self, namespace: str, name: str) -> SceneRow:
        row = await self._scribe.find(namespace, normalize("NFC", name))
        if row is None:
            raise NotFound(f"there is no scene {name!r}", param="scene", code="no_such_scene")
        return row

    def _spawn(self, row: SceneRow) -> Ref[SceneMessage]:
        return self.context.spawn_or_get(
            child_name(AgentKey(row.namespace, row.name)),
            partial(SceneActor, row, self._scribe, self._house),
            mailbox=self._mailbox,
            passivate_after_s=self._passivate_after_s,
            identity=row.uid,
        )


class Scenes:
    """The scenes of a house, for every door. All raise NotFound (``scene``) for an unknown name.

    ``perform``, ``vote`` and ``watch`` give channels of events; leaving one of the first two stops
    the scene, which goes on from there when it is performed again.
    """

    def __init__(self, theatre: Ref[TheatreMessage], scribe: Scribe, channel_capacity: int) -> None:
        self._theatre = theatre
        self._scribe = scribe
        self._capacity = channel_capacity

    async def create(self, namespace: str, scenario: Scenario) -> SceneInfo:
        """The scene of that name, made if there is none. Raises InvalidRequest, Conflict."""
        scenario = checked(scenario)
        await self._theatre.ask(MakeScene(namespace, scenario))
        return await self.info(namespace, scenario.name)

    async def list(self, namespace: str) -> list[SceneInfo]:
        """Every scene of the namespace, by name."""
        rows = await self._scribe.list(namespace)
        return [await self.info(namespace, row.name) for row in rows]

    async def info(self, namespace: str, name: str) -> SceneInfo:
        """Where a scene stands."""
        return await (await self._scene(namespace, name)).ask(Look())

    async def entries(self, namespace: str, name: str) -> tuple[Entry, ...]:
        """All that has happened in a scene."""
        return await (await self._scene(namespace, name)).ask(Read())

    async def delete(self, namespace: str, name: str) -> None:
        """Stop a scene and forget what was said in it; its members keep their memories."""
        await self._theatre.ask(DropScene(namespace, name))

    async def tell(self, namespace: str, name: str, told: Tell) -> Line:
        """Say something as narrator or guest. Raises InvalidRequest."""
        return await (await self._scene(namespace, name)).ask(told)

    async def perform(
        self, namespace: str, name: str, turns: int | None = None, speaker: str | None = None
    ) -> Channel[SceneEvent]:
        """Go on with a scene, for ``turns`` turns or to its end.

        Conflict while it is performed already comes on the channel, as whatever stops it.
        """
        scene = await self._scene(namespace, name)
        reply: Channel[SceneEvent] = Channel(self._capacity)
        scene.tell(Perform(reply, turns, speaker))
        return reply

    async def vote(self, namespace: str, name: str, vote: Vote) -> Channel[SceneEvent]:
        """Hold a vote; ``Counted`` brings the tally. Otherwise as ``perform``."""
        scene = await self._scene(namespace, name)
        reply: Channel[SceneEvent] = Channel(self._capacity)
        scene.tell(HoldVote(reply, vote))
        return reply

    async def tally(self, namespace: str, name: str, vote: Vote) -> Tally:
        """Hold a vote and wait for its count. Raises what stops it; leaving stops it too."""
        async with await self.vote(namespace, name, vote) as events:
            counted = [event.tally async for event in events if isinstance(event, Counted)]
        if not counted:
            raise GreenroomError("a vote ended without a count")
        return counted[0]

    async def watch(self, namespace: str, name: str) -> Channel[SceneEvent]:
        """See what happens from now on, whoever performs it."""
        scene = await self._scene(namespace, name)
        reply: Channel[SceneEvent] = Channel(self._capacity)
        scene.tell(Watch(reply))
        return reply

    async def _scene(self, namespace: str, name: str) -> Ref[SceneMessage]:
        return await self._theatre.ask(FindScene(namespace, name))
