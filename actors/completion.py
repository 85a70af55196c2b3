"""OpenAI's chat completion objects: from a turn's events to what a client reads."""

import time
from typing import Literal
from uuid import uuid4

import msgspec

from greenroom.runtime.records import (
    FinishReason,
    Timings,
    TurnDone,
    TurnProgress,
    TurnStarted,
    Usage,
)


class PromptDetails(msgspec.Struct, frozen=True):
    """How the prompt's tokens were come by."""

    cached_tokens: int


class CompletionUsage(msgspec.Struct, frozen=True):
    """OpenAI's usage object."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Told(msgspec.Struct, frozen=True):
    """What greenroom tells beyond the standard: who spoke, where they stand, where time went."""

    agent: str
    head: str | None
    timings: Timings


class AnswerMessage(msgspec.Struct, frozen=True):
    """The answer."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class Choice(msgspec.Struct, frozen=True):
    """One answer and why it ended."""

    message: AnswerMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    greenroom: Told
    object: Literal["chat.completion"] = "chat.completion"


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """The chunk's share of the one answer."""

    delta: Delta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream. ``usage`` is present in the last one only, as a client asked."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
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
    """The identity that all parts of one answer share."""

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._id = f"chatcmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model
        # While usage was asked for, every chunk before the last says null.
        self._usage: msgspec.UnsetType | None = None if include_usage else msgspec.UNSET

    def whole(self, done: TurnDone) -> Completion:
        """The answer in one piece."""
        return Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[Choice(AnswerMessage(done.text), done.finish_reason)],
            usage=usage(done.usage),
            greenroom=told(done),
        )

    def opening(self, _started: TurnStarted) -> Chunk:
        """The first chunk: the role."""
        return self._chunk(ChunkChoice(Delta(role="assistant", content="")))

    def text(self, text: str) -> Chunk:
        """More text."""
        return self._chunk(ChunkChoice(Delta(content=text)))

    def progress(self, read: TurnProgress) -> ReadSoFar:
        """How much of the prompt has been read; only for clients that have asked for it."""
        return ReadSoFar(self._id, read.prompt_tokens, read.done_tokens)

    def closing(self, done: TurnDone) -> list[Chunk]:
        """The reason it ended and, when asked for, a chunk without choices for the usage."""
        last = self._chunk(ChunkChoice(Delta(), done.finish_reason))
        last = msgspec.structs.replace(last, greenroom=told(done))
        if self._usage is msgspec.UNSET:
            return [last]
        return [last, Chunk(self._id, self._created, self._model, [], usage(done.usage))]

    def _chunk(self, choice: ChunkChoice) -> Chunk:
        return Chunk(self._id, self._created, self._model, [choice], self._usage)


def usage(used: Usage) -> CompletionUsage:
    """A turn's tokens in OpenAI's words."""
    return CompletionUsage(
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        total_tokens=used.prompt_tokens + used.completion_tokens,
        prompt_tokens_details=PromptDetails(used.cached_tokens),
    )


def told(done: TurnDone) -> Told:
    """What goes beyond the standard."""
    return Told(done.agent, done.head, done.timings)
