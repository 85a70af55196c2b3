"""``POST /v1/chat/completions``: a turn told as one JSON document or as server-sent events."""

from contextlib import suppress

import msgspec
from aiohttp import web

from greenroom.actors.completion import Answer
from greenroom.actors.guard import NAMESPACE
from greenroom.actors.house import House
from greenroom.actors.identity import AGENT_HEADER
from greenroom.actors.ongoing import BrokenTurn, Ongoing, opened
from greenroom.actors.openai import read_chat
from greenroom.actors.problems import problem
from greenroom.actors.request_id import REQUEST_ID
from greenroom.runtime.records import TextDelta, TokenLogprob, TurnDone, TurnRequest

HEAD_HEADER = "X-Agent-Head"


class ChatDoor:
    """The handler for chat completions in front of one house."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Validate, open the turn, and answer only once it has started."""
        call = read_chat(
            await request.read(),
            agent_header=request.headers.get(AGENT_HEADER),
            namespace=request[NAMESPACE],
        )
        card = self._house.model
        answer = Answer(
            self._house.resolve_model(call.model),
            card.fingerprint,
            include_usage=call.include_usage,
        )
        async with opened(self._house, call.turn) as turn:
            if call.stream:
                return await self._stream(request, turn, answer, call.turn.n)
            return await self._whole(turn, answer, call.turn)

    async def _whole(self, turn: Ongoing, answer: Answer, asked: TurnRequest) -> web.Response:
        done, logprobs = await collected(turn, asked)
        headers = {AGENT_HEADER: done.agent}
        if done.head is not None:
            headers[HEAD_HEADER] = done.head
        body = msgspec.json.encode(answer.whole(done, logprobs))
        return web.Response(body=body, headers=headers, content_type="application/json")

    async def _stream(
        self, request: web.Request, turn: Ongoing, answer: Answer, n: int
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                AGENT_HEADER: turn.started.agent,
            }
        )
        await response.prepare(request)
        # A client that leaves ends the handler, and with it the turn, by cancellation; where the
        # write sees it first, returning does the same.
        with suppress(ConnectionResetError):
            try:
                await self._events(response, turn, answer, n)
            except ConnectionResetError:
                raise
            except Exception as error:  # the HTTP edge: an error in mid-stream is told, not hidden
                await response.write(_event(problem(error, request[REQUEST_ID]).json()))
            await response.write_eof()
        return response

    async def _events(
        self, response: web.StreamResponse, turn: Ongoing, answer: Answer, n: int
    ) -> None:
        for choice in range(n):
            await response.write(_event(msgspec.json.encode(answer.opening(choice))))
        async for event in turn:
            match event:
                case TextDelta():
                    if (chunk := answer.piece(event)) is not None:
                        await response.write(_event(msgspec.json.encode(chunk)))
                case TurnDone():
                    for chunk in answer.closing(event):
                        await response.write(_event(msgspec.json.encode(chunk)))
        await response.write(_event(b"[DONE]"))


async def collected(
    turn: Ongoing, asked: TurnRequest
) -> tuple[TurnDone, list[list[TokenLogprob]] | None]:
    """A turn's end, and the log-probabilities of each of its answers where they were asked for."""
    logprobs: list[list[TokenLogprob]] = [[] for _ in range(asked.n)]
    async for event in turn:
        match event:
            case TextDelta(logprobs=some, choice=choice):
                logprobs[choice] += some
            case TurnDone():
                return event, None if asked.sampling.top_logprobs is None else logprobs
    raise BrokenTurn("a turn ended without saying how")


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
