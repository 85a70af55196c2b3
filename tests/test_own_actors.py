"""Actors of a user's own: they own agents, have children, crash, and are supervised."""

import asyncio
from functools import partial

import pytest

from greenroom import Actor, Message, Request, Supervision, Terminated
from greenroom.actors.handle import Agent
from greenroom.actors.room import Room
from greenroom.runtime import testkit
from greenroom.runtime.errors import ActorFailed, MailboxFull
from greenroom.runtime.ref import Ref
from greenroom.runtime.system import System
from tests.house import DONE, SmallHouse


class Review(Request[str], frozen=True):
    """Have a text reviewed."""

    text: str


class Retire(Message, frozen=True):
    """End the oldest critic."""


class Critic(Actor[Review]):
    """Owns one agent, and trips over a certain word."""

    def __init__(self, room: Room, name: str) -> None:
        self._room = room
        self._name = name
        self.agent: Agent

    async def on_start(self) -> None:
        self.agent = await self._room.spawn(self._name, system="You review texts.")

    async def handle(self, message: Review) -> str:
        if "comma" in message.text:
            raise ZeroDivisionError
        return (await self.agent.say(message.text)).text


class Editor(Actor[Review | Retire | Terminated]):
    """Spawns critics, supervises them, and is told when one is gone."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._critics: list[Ref[Review]] = []
        self.gone: asyncio.Queue[str] = asyncio.Queue()

    async def on_start(self) -> None:
        for name in ("ann", "bea"):
            critic = self.context.spawn(
                name, partial(Critic, self._room, name), supervision=Supervision(max_restarts=3)
            )
            self.context.watch(critic)
            self._critics.append(critic)

    async def handle(self, message: Review | Retire | Terminated) -> object:
        match message:
            case Review():
                answers = [await critic.ask(message) for critic in self._critics]
                return " / ".join(answers)
            case Retire():
                self.context.background(self._retire(self._critics.pop(0)))
            case Terminated():
                self.gone.put_nowait(message.ref.name)
        return None

    async def _retire(self, critic: Ref[Review]) -> None:
        await self.context.system.stop(critic)


def test_an_actor_with_agents_and_children() -> None:
    house = SmallHouse()

    async def scenario() -> None:
        async with System() as actors:
            room, editors = Room(house, actors), []

            def edit() -> Editor:
                editors.append(Editor(room))
                return editors[-1]

            editor = room.actors.spawn("editor", edit)
            assert await editor.ask(Review("Well.")) == f"{DONE.text} / {DONE.text}"
            assert [request.agent for request in house.requests] == ["ann", "bea"]
            assert [info.path for info in (await room.inspect()).actors.actors] == [
                "editor",
                "editor/ann",
                "editor/bea",
            ]
            editor.tell(Retire())
            assert await editor.ask(Review("Well.")) == DONE.text
            assert await editors[0].gone.get() == "ann"

    testkit.run(scenario)


def test_a_crash_is_told_and_the_actor_starts_again_with_its_agent() -> None:
    house = SmallHouse()

    async def scenario() -> None:
        async with System() as actors:
            room = Room(house, actors)
            critic = room.actors.spawn("critic", partial(Critic, room, "ann"))
            with pytest.raises(ActorFailed) as failed:
                await critic.ask(Review("A comma, splice."))
            assert isinstance(failed.value.__cause__, ZeroDivisionError)
            assert await critic.ask(Review("Well.")) == DONE.text
            assert [request.name for request in house.spawned] == ["ann", "ann"]
            (info,) = (await room.inspect()).actors.actors
            assert (info.restarts, info.generation) == (1, 2)

    testkit.run(scenario)


def test_an_agents_refusal_is_no_crash() -> None:
    house = SmallHouse()

    async def scenario() -> None:
        async with System() as actors:
            room = Room(house, actors)
            critic = room.actors.spawn("critic", partial(Critic, room, "ann"))
            house.refusal = MailboxFull("ann", 1)
            with pytest.raises(MailboxFull):
                await critic.ask(Review("Well."))
            house.refusal = None
            assert await critic.ask(Review("Well.")) == DONE.text
            assert (await room.inspect()).actors.actors[0].restarts == 0

    testkit.run(scenario)


def test_who_asks_and_leaves_cancels_the_turn() -> None:
    async def never(*_: object) -> None:
        await asyncio.sleep(1e6)

    house = SmallHouse(never)

    async def scenario() -> None:
        async with System() as actors:
            room = Room(house, actors)
            critic = room.actors.spawn("critic", partial(Critic, room, "ann"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await critic.ask(Review("Well."))
            await house.left.wait()

    testkit.run(scenario)
