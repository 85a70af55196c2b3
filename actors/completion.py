"""OpenAI's chat completion objects: from a turn's events to what a client reads."""

import time
from collections.abc import Iterable, Sequence
from typing import Literal
from uuid import uuid4

import msgspec

from greenroom.runtime.records import (
    Alternative,
    FinishReason,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    TurnDone,
    TurnProgress,
    Usage,
)


class PromptDetails(msgspec.Struct, frozen=True):
    """How the prompt's tokens were come by."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct, frozen=True):
    """What the answer's tokens were spent on."""

    reasoning_tokens: int


class CompletionUsage(msgspec.Struct, frozen=True):
    """OpenAI's usage object."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Told(msgspec.Struct, frozen=True):
    """What greenroom tells beyond the standard: who spoke, where they stand, where time went."""

    agent: str
    head: str | None
    timings: Timings
    notices: tuple[str, ...] = ()


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that might have been drawn; ``bytes`` are its own, as numbers."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(msgspec.Struct, frozen=True):
    """A token that was drawn, and the likeliest at its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct, frozen=True):
    """The answer's tokens and how likely each was."""

    content: list[ContentLogprob]
    refusal: None = None


class CalledFunction(msgspec.Struct, frozen=True):
    """The function and its arguments, as JSON text."""

    name: str
    arguments: str


class Called(msgspec.Struct, frozen=True):
    """A call of a tool."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct, frozen=True):
    """The answer; what the model did not think or call is left out."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[Called] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True):
    """One answer and why it ended."""

    message: AnswerMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: Logprobs | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    greenroom: Told
    system_fingerprint: str
    object: Literal["chat.completion"] = "chat.completion"


class FunctionDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """More of a call's arguments; its name comes with the first piece."""

    arguments: str
    name: str | None = None


class CallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """More of call number ``index``; ``id`` and ``type`` come with the first piece."""

    index: int
    function: FunctionDelta
    id: str | None = None
    type: Literal["function"] | None = None


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """The chunk's share of one answer."""

    delta: Delta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: Logprobs | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream. ``usage`` is present in the last one only, as a client asked."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: CompletionUsage | msgspec.UnsetType | None = msgspec.UNSET
    greenroom: Told | msgspec.UnsetType = msgspec.UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class ReadSoFar(msgspec.Struct, frozen=True):
    """How much of the prompt has been read; OpenAI has no such event."""

    id: str
    prompt_tokens: int
    done_tokens: int
    object: Literal["greenroom.progress"] = "greenroom.progress"


class Answer:
    """The identity that all parts of one response share."""

    def __init__(self, model: str, fingerprint: str, *, include_usage: bool = False) -> None:
        """``fingerprint`` names what gives equal answers to equal seeds."""
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model
        self._fingerprint = fingerprint
        # While usage was asked for, every chunk before the last says null.
        self._usage: msgspec.UnsetType | None = None if include_usage else msgspec.UNSET

    def whole(
        self, done: TurnDone, logprobs: Sequence[Sequence[TokenLogprob]] | None = None
    ) -> Completion:
        """The answers in one piece; ``logprobs`` of each choice where they were asked for."""
        choices = []
        for n, said in enumerate(answers(done)):
            told_logprobs = None if logprobs is None else spelled(logprobs[n])
            choices.append(Choice(_message(said), said.finish_reason, n, told_logprobs))
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=usage(done.usage),
            greenroom=told(done),
            system_fingerprint=self._fingerprint,
        )

    def opening(self, choice: int) -> Chunk:
        """A choice's first chunk: the role."""
        return self._chunk(ChunkChoice(Delta(role="assistant", content=""), index=choice))

    def piece(self, event: TextDelta) -> Chunk | None:
        """More of a choice; None where nothing is to be seen yet."""
        calls = [
            CallDelta(
                call.index,
                FunctionDelta(call.arguments, call.name),
                call.id,
                None if call.id is None else "function",
            )
            for call in event.tool_calls
        ]
        if not (event.text or event.reasoning or calls or event.logprobs):
            return None
        delta = Delta(None, event.text or None, event.reasoning or None, calls or None)
        logprobs = spelled(event.logprobs) if event.logprobs else None
        return self._chunk(ChunkChoice(delta, index=event.choice, logprobs=logprobs))

    def progress(self, read: TurnProgress) -> ReadSoFar:
        """How much of the prompt has been read; only for clients that have asked for it."""
        return ReadSoFar(self._id, read.prompt_tokens, read.done_tokens)

    def closing(self, done: TurnDone) -> list[Chunk]:
        """Why each choice ended and, when asked for, a chunk without choices for the usage."""
        chunks = [
            self._chunk(ChunkChoice(Delta(), said.finish_reason, n))
            for n, said in enumerate(answers(done))
        ]
        chunks[-1] = msgspec.structs.replace(chunks[-1], greenroom=told(done))
        if self._usage is not msgspec.UNSET:
            last = Chunk(self._id, self._created, self._model, [], self._fingerprint)
            chunks.append(msgspec.structs.replace(last, usage=usage(done.usage)))
        return chunks

    def _chunk(self, choice: ChunkChoice) -> Chunk:
        return Chunk(self._id, self._created, self._model, [choice], self._fingerprint, self._usage)


def answers(done: TurnDone) -> list[Alternative]:
    """All answers of a turn, the remembered one first."""
    first = Alternative(done.text, done.finish_reason, done.reasoning, done.tool_calls)
    return [first, *done.others]


def spelled(logprobs: Iterable[TokenLogprob]) -> Logprobs:
    """Log-probabilities in OpenAI's words."""
    return Logprobs(
        [
            ContentLogprob(
                as_text(each.utf8),
                each.logprob,
                list(each.utf8),
                [TopLogprob(as_text(t.utf8), t.logprob, list(t.utf8)) for t in each.top],
            )
            for each in logprobs
        ]
    )


def usage(used: Usage) -> CompletionUsage:
    """A turn's tokens in OpenAI's words."""
    return CompletionUsage(
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        total_tokens=used.prompt_tokens + used.completion_tokens,
        prompt_tokens_details=PromptDetails(used.cached_tokens),
        completion_tokens_details=CompletionDetails(used.reasoning_tokens),
    )


def told(done: TurnDone) -> Told:
    """What goes beyond the standard."""
    return Told(done.agent, done.head, done.timings, done.notices)


def _message(said: Alternative) -> AnswerMessage:
    calls = [_called(call) for call in said.tool_calls]
    return AnswerMessage(
        content=None if calls and not said.text else said.text,
        reasoning_content=said.reasoning or msgspec.UNSET,
        tool_calls=calls or msgspec.UNSET,
    )


def _called(call: ToolCall) -> Called:
    return Called(call.id, CalledFunction(call.name, call.arguments))


def as_text(utf8: bytes) -> str:
    """A token's text, with a mark where it is only a part of a character."""
    return utf8.decode("utf-8", "replace")
