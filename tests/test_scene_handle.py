"""A scene from Python, in this process and far away: the same handle, the same answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import pytest

import greenroom
from greenroom.actors.http import serve_http
from greenroom.actors.remote_errors import ServerLost
from greenroom.actors.room import Room
from greenroom.actors.scene_messages import Interrupted, Speaking, Token
from greenroom.runtime.errors import Conflict, InvalidRequest, NotFound
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.scenario import Member, Phase, Vote
from greenroom.runtime.system import System
from greenroom.runtime.transcript import Cast, Counted, Cue, Ended, Line, PhaseBegun
from tests.house import run, settings
from tests.repertory import Evening, Repertory, World

MEMBERS = (Member(name="ann", agent="ann"), Member(name="bob", agent="bob"))


def answer(agent: str, prompt: Sequence[ChatMessage], number: int) -> str:
    return "Tea." if "options are" in prompt[-1].content else f"{number} from {agent}"


@asynccontextmanager
async def near(house: Repertory) -> AsyncIterator[Room]:
    async with Evening(house).system, System() as actors:
        yield Room(house, actors)


@asynccontextmanager
async def far(house: Repertory) -> AsyncIterator[Room]:
    async with (
        Evening(house).system,
        serve_http(house, "127.0.0.1", 0) as url,
        greenroom.connect(url) as room,
    ):
        yield room


Play = Callable[[Room], Coroutine[Any, Any, None]]


@pytest.fixture(params=[near, far], ids=["local", "remote"])
def enact(request: pytest.FixtureRequest) -> Callable[..., World]:
    """Runs a scenario in a room of agents without a model; what is on disk afterwards."""

    def enact(scenario: Play, fates: Sequence[str | None] = (), pace: float = 0.01) -> World:
        world = World()

        async def main() -> None:
            async with request.param(Repertory(world, answer, fates, pace)) as room:
                await scenario(room)

        run(main())
        return world

    return enact


Enact = Callable[..., World]


def test_a_scene_is_performed_event_by_event_to_its_end(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        phases = (Phase(name="talk", opening="The curtain rises.", turns=3),)
        scene = await room.scene("tea", MEMBERS, phases=phases)
        events = [event async for event in scene.stream()]
        kinds = [type(event) for event in events]
        assert kinds[:5] == [PhaseBegun, Line, Cue, Speaking, Token]
        assert isinstance(events[-1], Ended)
        said = [e.text for e in events if isinstance(e, Line) and e.speaker]
        assert said == ["1 from ann", "2 from bob", "3 from ann"]
        tokens = "".join(e.text for e in events if isinstance(e, Token))
        assert tokens.split() == " ".join(said).split()
        assert await scene.run() == []
        assert [x.text for x in await scene.transcript(heard_by="bob")][1:] == said
        info = await scene.info()
        assert (info.turns, info.ended, info.members) == (3, "finished", ("ann", "bob"))
        assert [each.name for each in await room.scenes()] == ["tea"]
        durable = tuple(e for e in events if not isinstance(e, Speaking | Token))
        assert await scene.entries() == durable

    enact(scenario)


def test_the_same_name_is_the_same_scene_and_another_is_a_conflict(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        scene = await room.scene("tea", MEMBERS, temperature=0.5, seed=3)
        await scene.run(1)
        again = await room.scene("tea", MEMBERS, temperature=0.5, seed=3)
        assert (await again.info()).turns == 1
        assert (await (await room.scene("tea")).info()).turns == 1
        with pytest.raises(Conflict):
            await room.scene("tea", MEMBERS)
        with pytest.raises(NotFound):
            await room.scene("coffee")
        with pytest.raises(InvalidRequest, match="twice"):
            await room.scene("two", (MEMBERS[0], MEMBERS[0]))
        await scene.delete()
        for gone in (scene.run(1), scene.info(), scene.say("?"), scene.delete(), scene.entries()):
            with pytest.raises(NotFound):
                await gone
        with pytest.raises(NotFound):
            await anext(scene.watch())
        assert await room.scenes() == []

    enact(scenario)


def test_what_is_said_whispered_and_voted(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        scene = await room.scene("tea", MEMBERS)
        line = await scene.say("What shall we drink?", speaker="Guest")
        assert (line.speaker, line.to) == ("Guest", None)
        assert (await scene.whisper("bob", "Ann hates coffee.")).to == ("bob",)
        (spoken,) = await scene.step("bob")
        assert (spoken.speaker, spoken.text) == ("bob", "1 from bob")
        tally = await scene.vote("Which?", ["tea", "coffee"], method="ranked", voters=["ann"])
        assert (tally.winner, tally.num_valid, tally.method) == ("tea", 1, "ranked")
        kinds = {type(entry) for entry in await scene.entries()}
        assert {Cast, Counted} <= kinds
        for wrong, text in (
            (scene.say("Me too.", speaker="ann"), "is a member"),
            (scene.whisper("eve", "Psst."), "no member"),
            (scene.vote("?", ["a", " A"]), "told apart"),
            (scene.run(), "no end of its own"),
        ):
            with pytest.raises(InvalidRequest, match=text):
                await wrong

    world = enact(scenario)
    assert not any(m.content == "Ann hates coffee." for m in world.memories["ann"])
    assert sum(m.content == "Ann hates coffee." for m in world.memories["bob"]) == 1


def test_others_watch_and_nobody_else_performs(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        scene = await room.scene("tea", MEMBERS)
        async with aclosing(scene.watch()) as watching:
            first = asyncio.ensure_future(anext(watching))
            while not first.done():
                await scene.say("Is anybody there?")  # until the watcher has come in
                await asyncio.wait([first], timeout=0.05)
            async with aclosing(scene.stream(9)) as events:
                await anext(events)
                with pytest.raises(Conflict, match="being performed"):
                    await scene.run(1)
                async for event in events:
                    if isinstance(event, Line):
                        break
            async for seen in watching:
                if isinstance(seen, Line) and seen.speaker == "ann":
                    break
            while (await scene.info()).performing:
                pass  # leaving has stopped it
            await scene.run(1)
            assert [x.speaker for x in await scene.transcript() if x.speaker] == ["ann", "bob"]
            deletion = asyncio.ensure_future(scene.delete())
            assert [e async for e in watching if isinstance(e, Ended)] == [], "the watch has an end"
            await deletion

    enact(scenario)


def test_failures_are_tried_again_and_told(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        scene = await room.scene("tea", MEMBERS)
        events = [event async for event in scene.stream(1)]
        assert [e.reason for e in events if isinstance(e, Interrupted)] == ["StageFailed"]

    enact(scenario, ["gpu"])


def test_a_vote_is_given_up_by_whoever_leaves(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        scene = await room.scene("tea", MEMBERS)
        voting = asyncio.ensure_future(scene.vote("Which?", ["tea", "coffee"]))
        while not (await scene.info()).performing:
            pass
        voting.cancel()
        while (await scene.info()).performing:
            pass
        tally = await scene.vote("Which?", ["tea", "coffee"])
        assert tally.num_valid == 2
        assert len([e for e in await scene.entries() if isinstance(e, Cast)]) == 2

    enact(scenario, pace=0.1)


def test_a_server_that_goes_in_the_middle_of_a_scene() -> None:
    async def scenario() -> None:
        house = Repertory(World(), answer, pace=0.05)
        house.settings = settings(drain_s=0.05)
        async with Evening(house).system, AsyncExitStack() as connection:
            async with serve_http(house, "127.0.0.1", 0) as url:
                room = await connection.enter_async_context(greenroom.connect(url))
                scene = await room.scene("tea", MEMBERS)
                events = scene.stream(500)
                await anext(events)
            with pytest.raises(ServerLost):
                async for _ in events:
                    pass
            with pytest.raises(ServerLost):
                await scene.info()

    run(scenario())


def test_a_vote_as_it_is_written_is_a_scenes(enact: Enact) -> None:
    async def scenario(room: Room) -> None:
        vote = Vote(question="Which?", options=("tea", "coffee"))
        scene = await room.scene("tea", MEMBERS, phases=(Phase(turns=1, vote=vote),))
        events = [event async for event in scene.stream()]
        (counted,) = (e.tally for e in events if isinstance(e, Counted))
        assert (counted.winner, counted.points) == ("tea", {"tea": 2, "coffee": 0})

    enact(scenario)
