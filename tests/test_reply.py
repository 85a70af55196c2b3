"""Streams: what is read of them, and that leaving one early cancels the turn behind it."""

import asyncio
from contextlib import aclosing

import pytest

from greenroom.actors.reply import NoReplyYet, Stream
from greenroom.actors.toolloop import ToolBounds, perform
from greenroom.actors.tools import Toolbox
from greenroom.runtime.records import (
    ChatMessage,
    TextDelta,
    TurnDone,
    TurnRequest,
    TurnStarted,
)
from tests.house import DONE, WORDS, SmallHouse, run, talk

SAID = TurnRequest(messages=(ChatMessage("user", "Hello"),), mode="say", agent="alice")


def stream(house: SmallHouse) -> Stream:
    return Stream(lambda: perform(house, SAID, Toolbox(), ToolBounds()))


def test_text_then_the_reply() -> None:
    async def scenario() -> None:
        answer = stream(SmallHouse())
        with pytest.raises(NoReplyYet):
            _ = answer.reply
        assert [text async for text in answer] == [word for word in WORDS if word]
        assert (answer.reply.text, answer.reply.cached_tokens) == (DONE.text, 5)
        with pytest.raises(RuntimeError, match="read once"):
            aiter(answer)

    run(scenario())


def test_all_events() -> None:
    async def scenario() -> None:
        async with aclosing(stream(SmallHouse()).events()) as events:
            kinds = [type(event) async for event in events]
        assert kinds == [TurnStarted, *[TextDelta] * len(WORDS), TurnDone]

    run(scenario())


def test_break_cancels_at_the_loops_next_step() -> None:
    """Also while the stream itself is still held: it is the loop that is left."""

    async def scenario() -> None:
        house = SmallHouse(talk)
        answer = stream(house)
        async for _ in answer:
            break
        for _ in range(3):
            await asyncio.sleep(0)
        assert house.left.is_set()
        with pytest.raises(NoReplyYet):
            _ = answer.reply

    run(scenario())


def test_an_async_with_cancels_before_the_next_line() -> None:
    async def scenario() -> None:
        house = SmallHouse(talk)
        async with stream(house) as answer:
            texts = aiter(answer)
            await anext(texts)
        assert house.left.is_set()

    run(scenario())


def test_a_whole_answer_that_is_given_up_cancels() -> None:
    async def scenario() -> None:
        house = SmallHouse(talk)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await stream(house).whole()
        assert house.left.is_set()

    run(scenario())
