"""Python's door on a whole house: everything that an agent can be asked for."""

import asyncio
import datetime
import enum
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pydantic
import pytest

from greenroom.actors.handle import Agent, TurnOptions
from greenroom.actors.reply import AnswerIncomplete, AnswerRejected
from greenroom.actors.room import Room
from greenroom.actors.tools import FunctionTool
from greenroom.runtime.errors import Conflict, InvalidRequest, NotFound
from greenroom.runtime.records import ChatMessage, Sampling
from tests.menagerie import config_of
from tests.rooms import Rooms
from tests.zoo import save_checkpoint

SYSTEM = "You are Bob. " * 4


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Iterator[Rooms]:
    config = {**config_of("llama"), "model_type": "llama", "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("rooms")
    rooms = Rooms(folder / "home", save_checkpoint(folder / "model", default_model_path, config))
    yield rooms
    rooms.close()


@pytest.fixture(params=["local", "remote"])
def room(rooms: Rooms, request: pytest.FixtureRequest) -> Room:
    return rooms.room(request.param)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An agent's name that no other test has."""
    return "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]


async def said(agent: Agent, content: str = "What is the capital of France?") -> str:
    return (await agent.say(content, max_tokens=6, temperature=0)).text


def test_a_turn_and_what_is_told_of_it(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name, system=SYSTEM)
        first = await bob.say("Hello", max_tokens=4, temperature=0)
        assert (first.finish_reason, first.usage.completion_tokens) == ("length", 4)
        assert first.head == (await bob.info()).head
        second = await bob.say("And?", max_tokens=4, sampling=Sampling(temperature=0))
        assert second.cached_tokens >= first.usage.prompt_tokens
        assert second.timings.ttft_ms > 0

    rooms.run(scenario())


def test_spawning_finds_or_makes(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        await room.spawn(name, system=SYSTEM, ttl_s=3600.0)
        again = await room.spawn(name)
        info = await again.info()
        assert (info.system, info.ttl_s) == (SYSTEM, 3600.0)
        with pytest.raises(Conflict):
            await room.spawn(name, system="Somebody else.")
        with pytest.raises(InvalidRequest):
            await room.spawn("no / name")
        with pytest.raises(NotFound):
            await room.spawn(f"{name}-2", model="another/model")
        assert name in [info.name for info in await room.agents()]

    rooms.run(scenario())


def test_streams(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name)
        text = ""
        stream = bob.stream("Hello", max_tokens=6, temperature=0)
        async for piece in stream:
            text += piece
        assert text == stream.reply.text
        twin = await room.spawn(f"{name}-2")
        assert (await twin.say("Hello", max_tokens=6, temperature=0)).text == text

    rooms.run(scenario())


def test_a_turn_that_is_left_is_not_remembered(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name)
        await said(bob)
        head = (await bob.info()).head
        async with bob.stream("Tell me a long story", max_tokens=1500, temperature=0) as story:
            async for _ in story:
                break
        assert (await bob.info()).head == head
        # The slot is free: the next turn does not wait for 1,500 tokens.
        await said(bob)

    rooms.run(scenario())


def test_hearing(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name)
        await bob.hear("It rains in Rome.", name="alice")
        heard = await bob.heard()
        assert (heard.num_pending, heard.head) == (0, (await bob.info()).head)
        assert (await bob.say("And?", max_tokens=2)).cached_tokens > 0
        with pytest.raises(InvalidRequest):
            await bob.hear("")

    rooms.run(scenario())


def test_memory_verbs(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name, system=SYSTEM)
        await said(bob)
        log = await bob.log()
        assert [entry.kind for entry in log] == ["system", "prompt", "generation"]
        fork = await bob.fork(f"{name}-2")
        assert await said(fork, "And of Spain?") == await said(bob, "And of Spain?")
        with pytest.raises(Conflict):
            await bob.fork(f"{name}-2")
        back = await bob.rollback(log[-1].id[:16])
        assert back.head == log[-1].id
        assert await bob.pin() == log[-1].id
        assert [entry.pinned for entry in await bob.log()][-1]
        assert await bob.unpin(log[-1].id) == log[-1].id
        probe = await bob.probe("And of Spain?")
        assert probe.cached_tokens == probe.prompt_tokens
        with pytest.raises(NotFound):
            await bob.rollback("nowhere")

    rooms.run(scenario())


def test_carrying_an_agent_away(rooms: Rooms, room: Room, name: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name, system=SYSTEM)
        await said(bob)
        file = await bob.export_to(tmp_path / "bob.agent")
        assert await asyncio.to_thread(os.listdir, tmp_path) == ["bob.agent"]
        twin = await room.import_agent(file, name=f"{name}-2")
        assert await said(twin, "And?") == await said(bob, "And?")
        with pytest.raises(Conflict):
            await room.import_agent(file, name=name)
        assert (await twin.forget()).num_segments == 0, "bob needs them all"
        assert (await bob.forget()).num_segments > 0
        with pytest.raises(NotFound):
            await bob.info()
        await room.import_agent(chunks(file), name=name)
        assert (await bob.info()).system == SYSTEM
        await asyncio.to_thread(file.write_bytes, b"rubbish")
        with pytest.raises(InvalidRequest):
            await room.import_agent(file, name=f"{name}-3")

    rooms.run(scenario())


async def chunks(file: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(file.read_bytes)


def test_several_messages_and_who_is_not_there(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        nobody = room.agent(name)
        for asked in (nobody.info, nobody.log, nobody.forget, nobody.pin):
            with pytest.raises(NotFound):
                await asked()
        messages = [ChatMessage("user", "Hello"), ChatMessage("user", "And?")]
        reply = await nobody.say(messages, max_tokens=2)
        assert reply.usage.completion_tokens <= 2
        with pytest.raises(InvalidRequest):
            await nobody.say("x " * 100_000)

    rooms.run(scenario())


class Verdict(msgspec.Struct):
    guilty: bool
    years: Annotated[int, msgspec.Meta(ge=0, le=99)]
    plea: Literal["guilty", "not guilty"]


def test_answers_of_a_given_type(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        judge = await room.spawn(name)
        sentence = await judge.say("Well?", schema=Verdict, temperature=0, max_tokens=60)
        assert isinstance(sentence.value, Verdict)
        assert 0 <= sentence.value.years <= 99
        with pytest.raises(AnswerIncomplete) as cut:
            await judge.say("Well?", schema=Verdict, max_tokens=2)
        assert cut.value.reply.finish_reason == "length"

    rooms.run(scenario())


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = "cross"


class Card(pydantic.BaseModel):
    kind: Literal["card"]
    number: Annotated[str, pydantic.Field(pattern=r"^[0-9]{4}$")]


class Cash(pydantic.BaseModel):
    kind: Literal["cash"]
    coins: Annotated[list[Literal[1, 2, 5]], pydantic.Field(min_length=1, max_length=3)]


class Order(pydantic.BaseModel):
    """All that a schema of pydantic's is usually made of."""

    mood: Mood
    day: datetime.date
    tip: Annotated[float, pydantic.Field(ge=0, le=5)] | None
    pay: Annotated[Card | Cash, pydantic.Field(discriminator="kind")]
    table: tuple[bool, Annotated[int, pydantic.Field(gt=0, lt=40)]]
    guests: Annotated[int, pydantic.Field(alias="numGuests", ge=1, le=9)]
    spare: Annotated[dict[str, bool], pydantic.Field(max_length=0)] = {}


class Odd(pydantic.BaseModel):
    number: Literal[2, 4]

    @pydantic.field_validator("number")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("not odd")
        return value


def test_answers_of_pydantic_models(rooms: Rooms, room: Room, name: str) -> None:
    async def scenario() -> None:
        waiter = await room.spawn(name)
        reply = await waiter.say("Well?", schema=Order, temperature=0, max_tokens=200)
        order: Order = reply.value
        assert isinstance(order.pay, Card | Cash)
        assert 1 <= order.guests <= 9
        assert Order.model_validate_json(reply.text) == order
        with pytest.raises(AnswerRejected, match="not odd") as refused:
            await waiter.say("Well?", schema=Odd, max_tokens=20)
        assert refused.value.reply.head == (await waiter.info()).head, "it is remembered"
        with pytest.raises(AnswerIncomplete):
            await waiter.say("Well?", schema=Order, max_tokens=2)

    rooms.run(scenario())


class Node(pydantic.BaseModel):
    """It refers to itself."""

    value: Literal[0, 1]
    next: "Node | None" = None


class Numbers(pydantic.RootModel[list[Literal[1, 2]]]):
    root: Annotated[list[Literal[1, 2]], pydantic.Field(min_length=2, max_length=2)]


def test_pydantic_models_that_refer_to_themselves_or_are_no_objects(
    rooms: Rooms, room: Room, name: str
) -> None:
    async def scenario() -> None:
        bob = await room.spawn(name)
        options = TurnOptions(sampling=Sampling(temperature=1, seed=5), max_tokens=300)
        assert isinstance((await bob.say("Count.", schema=Node, **options)).value, Node)
        assert len((await bob.say("Count.", schema=Numbers, **options)).value.root) == 2

    rooms.run(scenario())


def test_tools(rooms: Rooms, room: Room, name: str) -> None:
    """A model of random weights asks for a tool only where it must: in the first round."""
    rolled: list[int] = []

    async def roll(sides: Annotated[int, msgspec.Meta(ge=2, le=99)]) -> int:
        """Roll a die."""
        rolled.append(sides)
        return 4

    async def scenario() -> None:
        bob = await room.spawn(name)
        reply = await bob.say(
            "Roll!", tools=[roll], tool_choice="roll", temperature=0, max_tokens=60
        )
        (run,) = reply.tool_runs
        assert (run.result, run.failed, run.call.name) == ("4", False, "roll")
        assert len(rolled) == 1
        spec = FunctionTool(roll).spec
        # It may call any number of times: each ends the answer with some chance only.
        seeded = TurnOptions(sampling=Sampling(temperature=1, seed=5), max_tokens=300)
        must = TurnOptions(tools=[spec], tool_choice="required", **seeded)
        asked = await bob.say("Again!", **must)
        assert asked.finish_reason == "tool_calls"
        answer = ChatMessage("tool", "5", tool_call_id=asked.tool_calls[0].id)
        assert (await bob.say([answer], max_tokens=2)).usage.completion_tokens <= 2
        with pytest.raises(InvalidRequest):
            await bob.say("Roll!", tools=[roll], tool_choice="unheard_of")

    rooms.run(scenario())


def test_inspection(rooms: Rooms, room: Room) -> None:
    inspection = rooms.run(room.inspect())
    assert "gpu" in [actor.path for actor in inspection.house.actors.actors]
    assert room.model.context_window > 0
