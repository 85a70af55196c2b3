import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.channel import Channel
from greenroom.runtime.errors import ChannelCancelled, ChannelClosed, ChannelFull
from greenroom.runtime.testkit import run


@given(st.lists(st.integers()), st.integers(1, 5), st.integers(0, 1000))
def test_everything_arrives_in_order_and_the_buffer_is_bounded(
    events: list[int], capacity: int, seed: int
) -> None:
    async def main() -> list[int]:
        channel: Channel[int] = Channel(capacity)
        ahead = 0

        async def produce() -> None:
            nonlocal ahead
            for event in events:
                await channel.send(event)
                ahead += 1
                assert ahead <= capacity + 1  # one may be in the reader's hands
            channel.close()

        producer = asyncio.create_task(produce())
        received = []
        async for event in channel:
            ahead -= 1
            received.append(event)
        await producer
        return received

    assert run(main, seed=seed) == events


def test_a_full_channel_refuses_at_once_or_waits_for_room() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        rooms: list[str] = []
        channel.on_room(lambda: rooms.append("at once"))
        channel.send_nowait(1)
        assert channel.full
        with pytest.raises(ChannelFull):
            channel.send_nowait(2)
        channel.on_room(lambda: rooms.append("later"))
        assert rooms == ["at once"]
        assert await anext(channel) == 1
        assert rooms == ["at once", "later"]

    run(main)


def test_a_failure_comes_after_what_is_buffered() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        channel.send_nowait(1)
        channel.fail(ValueError("broken"))
        channel.close()  # over already: changes nothing
        assert await anext(channel) == 1
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                await anext(channel)
        with pytest.raises(ChannelClosed):
            channel.send_nowait(2)

    run(main)


def test_leaving_early_tells_the_producer_even_while_it_waits_for_room() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel(1)
        told: list[str] = []
        channel.on_cancel(lambda: told.append("cancelled"))
        channel.send_nowait(1)
        blocked = asyncio.create_task(channel.send(2))
        async with channel:
            async for _ in channel:
                break
        assert told == ["cancelled"]
        assert channel.cancelled
        with pytest.raises(ChannelCancelled):
            await blocked
        with pytest.raises(ChannelCancelled):
            await channel.send(3)
        channel.on_cancel(lambda: told.append("late"))
        assert told == ["cancelled", "late"]
        assert [event async for event in channel] == []

    run(main)


def test_leaving_after_the_end_cancels_nothing() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        told: list[str] = []
        channel.on_cancel(lambda: told.append("cancelled"))
        channel.send_nowait(1)
        channel.close()
        async with channel:
            pass
        assert not channel.cancelled
        assert told == []

    run(main)


def test_a_cancelled_reader_loses_nothing() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        reader = asyncio.create_task(anext(channel))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait([reader])
        channel.send_nowait(1)
        assert await anext(channel) == 1

    run(main)


def test_one_reader() -> None:
    async def main() -> None:
        channel: Channel[int] = Channel()
        reader = asyncio.create_task(anext(channel))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(channel)
        channel.send_nowait(1)
        assert await reader == 1

    run(main)
