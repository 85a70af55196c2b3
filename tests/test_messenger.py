"""Agents that speak to each other by name, through tools."""

import asyncio

import pytest

from greenroom.actors.handle import Agent
from greenroom.actors.messenger import messengers
from greenroom.actors.tools import ToolRefusal
from greenroom.runtime.errors import MailboxFull
from tests.house import DONE, SmallHouse


def test_asking_and_telling() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        alice, bob = Agent(house, "alice"), Agent(house, "bob")
        ask, tell = messengers(alice, [bob], max_tokens=32)
        assert "They are: bob." in (ask.spec.description or "")
        assert await ask.run('{"name": "bob", "question": "Who are you?"}') == DONE.text
        (request,) = house.requests
        assert (request.agent, request.max_tokens) == ("bob", 32)
        assert request.messages[0].content == "alice asks: Who are you?"
        assert await tell.run('{"name": "bob", "message": "It rains."}') == "bob has been told."
        assert (house.told[0].agent, house.told[0].name) == ("bob", "alice")

    asyncio.run(scenario())


def test_what_the_model_is_told_when_it_does_not_work() -> None:
    async def scenario() -> None:
        house = SmallHouse()
        alice, bob = Agent(house, "alice"), Agent(house, "bob")
        ask, tell = messengers(alice, [bob])
        with pytest.raises(ToolRefusal, match="no agent 'carol'; there are: bob"):
            await ask.run('{"name": "carol", "question": "?"}')
        house.refusal = MailboxFull("bob", 1)
        with pytest.raises(ToolRefusal, match="bob cannot answer: bob has 1 messages waiting"):
            await ask.run('{"name": "bob", "question": "?"}')
        with pytest.raises(ToolRefusal, match="bob cannot be told"):
            await tell.run('{"name": "bob", "message": "?"}')

    asyncio.run(scenario())
    alice = Agent(SmallHouse(), "alice")
    with pytest.raises(ValueError, match="its own correspondent"):
        messengers(alice, [alice])
