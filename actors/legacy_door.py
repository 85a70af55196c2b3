"""``POST /v1/completions``: bare prompts continued, one after the other."""

import msgspec
from aiohttp import web

from greenroom.actors.answers import json_answer
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import AGENT_HEADER
from greenroom.actors.legacy import CompletionCall, LegacyAnswer, LegacyCompletion, read_completion
from greenroom.actors.ongoing import collected, opened
from greenroom.actors.sse import EventStream, framed, streaming
from greenroom.runtime.records import TextDelta, TurnDone


class LegacyDoor:
    """The handler for legacy completions in front of one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Validate, and answer prompt by prompt."""
        call = read_completion(
            await request.read(),
            agent_header=request.headers.get(AGENT_HEADER),
            namespace=request[NAMESPACE],
        )
        model = self._house.resolve_model(call.model)
        answer = LegacyAnswer(model, self._house.model.fingerprint, call)
        if not call.stream:
            return await self._whole(call, answer)
        async with streaming(request, self._house.settings.server) as stream:
            for number in range(len(call.turns)):
                await self._events(stream, call, answer, number)
            await stream.send(framed(b"[DONE]"))
        return stream.response

    async def _whole(self, call: CompletionCall, answer: LegacyAnswer) -> web.Response:
        turns = []
        for asked in call.turns:
            async with opened(self._house, asked) as turn:
                turns.append(await collected(turn, asked))
        return json_answer(answer.whole(turns))

    async def _events(
        self, stream: EventStream, call: CompletionCall, answer: LegacyAnswer, number: int
    ) -> None:
        async with opened(self._house, call.turns[number]) as turn:
            for chunk in answer.opening(number):
                await stream.send(_told(chunk))
            async for event in turn:
                match event:
                    case TextDelta():
                        if (piece := answer.piece(number, event)) is not None:
                            await stream.send(_told(piece))
                    case TurnDone():
                        for chunk in answer.closing(number, event):
                            await stream.send(_told(chunk))


def _told(chunk: LegacyCompletion) -> bytes:
    return framed(msgspec.json.encode(chunk))
