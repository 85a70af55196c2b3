"""A house that plays a script: what each turn of an agent comes to, known beforehand."""

import asyncio
from collections.abc import Sequence

import msgspec

from greenroom.runtime.channel import Channel
from greenroom.runtime.records import TextDelta, ToolCall, TurnDone, TurnEvent, TurnRequest
from tests.house import DONE, STARTED


def calling(name: str, arguments: str = "{}", call_id: str = "1") -> TurnDone:
    """A turn that asks for a tool."""
    call = ToolCall(call_id, name, arguments)
    return msgspec.structs.replace(DONE, text="", finish_reason="tool_calls", tool_calls=(call,))


class Scripted:
    """Answers each turn with the next of ``dones``, the last one for ever; keeps the requests."""

    def __init__(self, *dones: TurnDone) -> None:
        self._dones: Sequence[TurnDone] = dones
        self.requests: list[TurnRequest] = []
        self.left = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open_turn(self, request: TurnRequest) -> Channel[TurnEvent]:
        done = self._dones[min(len(self.requests), len(self._dones) - 1)]
        self.requests.append(request)
        channel: Channel[TurnEvent] = Channel(8)
        channel.on_cancel(self._leave)
        self._tasks.add(asyncio.create_task(self._play(channel, done)))
        return channel

    def _leave(self) -> None:
        self.left += 1

    async def _play(self, channel: Channel[TurnEvent], done: TurnDone) -> None:
        for event in (STARTED, TextDelta(done.text, (1,)), done):
            await channel.send(event)
        channel.close()
