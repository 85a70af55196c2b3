"""``POST /v1/chat/completions``: a turn told as one JSON document or as server-sent events."""

import msgspec
from aiohttp import web

from greenroom.actors.answers import HEAD_HEADER
from greenroom.actors.completion import Answer, Chunk, ReadSoFar
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import AGENT_HEADER
from greenroom.actors.ongoing import Ongoing, collected, opened
from greenroom.actors.openai import ChatCall, read_chat
from greenroom.actors.sse import CACHED_HEADER, EventStream, framed, streaming, wants_progress
from greenroom.runtime.records import TextDelta, TurnDone, TurnProgress, TurnRequest


class ChatDoor:
    """The handler for chat completions in front of one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Validate, open the turn, and answer only once it has started."""
        call = read_chat(
            await request.read(),
            headers={name.lower(): value for name, value in request.headers.items()},
            namespace=request[NAMESPACE],
        )
        card = self._house.model
        answer = Answer(
            self._house.resolve_model(call.model),
            card.fingerprint,
            include_usage=call.include_usage,
        )
        if call.stream:
            return await self._stream(request, call, answer)
        async with opened(self._house, call.turn) as turn:
            return await self._whole(turn, answer, call.turn)

    async def _whole(self, turn: Ongoing, answer: Answer, asked: TurnRequest) -> web.Response:
        done, logprobs = await collected(turn, asked)
        headers = {AGENT_HEADER: done.agent, CACHED_HEADER: str(done.usage.cached_tokens)}
        if done.head is not None:
            headers[HEAD_HEADER] = done.head
        body = msgspec.json.encode(answer.whole(done, logprobs))
        return web.Response(body=body, headers=headers, content_type="application/json")

    async def _stream(
        self, request: web.Request, call: ChatCall, answer: Answer
    ) -> web.StreamResponse:
        async with (
            streaming(request, self._house.settings.server) as stream,
            opened(self._house, call.turn) as turn,
        ):
            started = turn.started
            await stream.open(
                {AGENT_HEADER: started.agent, CACHED_HEADER: str(started.cached_tokens)}
            )
            for choice in range(call.turn.n):
                await stream.send(_told(answer.opening(choice)))
            await self._events(stream, turn, answer, progress=wants_progress(request))
        return stream.response

    async def _events(
        self, stream: EventStream, turn: Ongoing, answer: Answer, *, progress: bool
    ) -> None:
        async for happened in turn.events():
            match happened:
                case TextDelta():
                    if (chunk := answer.piece(happened)) is not None:
                        await stream.send(_told(chunk))
                case TurnProgress():
                    if progress:
                        await stream.send(_told(answer.progress(happened)))
                case TurnDone():
                    for chunk in answer.closing(happened):
                        await stream.send(_told(chunk))
        await stream.send(framed(b"[DONE]"))


def _told(chunk: Chunk | ReadSoFar) -> bytes:
    return framed(msgspec.json.encode(chunk))
