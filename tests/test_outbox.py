"""The outbox: nothing waits for a slow reader, and nothing is lost, doubled or reordered."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.outbox import Outbox
from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ChannelCancelled

pytestmark = pytest.mark.anyio


@given(steps=st.lists(st.integers(0, 3), max_size=40), capacity=st.integers(1, 4))
def test_every_event_arrives_once_and_in_order(steps: list[int], capacity: int) -> None:
    async def scenario() -> list[int]:
        channel: Channel[int] = Channel(capacity)
        outbox = Outbox(channel)
        read: list[int] = []
        sent = 0
        for step in steps:
            if step:
                for _ in range(step):
                    outbox.put(sent)
                    sent += 1
            elif len(read) < sent:
                read.append(await anext(channel))
        flushed = asyncio.ensure_future(outbox.flush())
        while len(read) < sent:
            read.append(await anext(channel))
        await flushed
        assert read == list(range(sent))
        return read

    asyncio.run(scenario())


async def test_a_reader_who_leaves_ends_the_wait() -> None:
    channel: Channel[int] = Channel(1)
    outbox = Outbox(channel)
    for number in range(3):
        outbox.put(number)
    flushed = asyncio.ensure_future(outbox.flush())
    await asyncio.sleep(0)
    assert not flushed.done()
    channel.cancel()
    with pytest.raises(ChannelCancelled):
        await flushed
    with pytest.raises(ChannelCancelled):
        outbox.put(4)


async def test_what_waits_when_the_channel_fails_is_dropped() -> None:
    channel: Channel[int] = Channel(1)
    outbox = Outbox(channel)
    outbox.put(1)
    outbox.put(2)
    channel.fail(RuntimeError("the agent has crashed"))
    await outbox.flush()
    assert await anext(channel) == 1
    with pytest.raises(RuntimeError, match="crashed"):
        await anext(channel)
