"""OpenAI's legacy completions: from a body to bare prompts, and from turns to their objects."""

import time
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

import msgspec

from greenroom.actors.completion import CompletionUsage, Told, answers, as_text, told, usage
from greenroom.actors.fields import decode, refuse_unknown, within
from greenroom.actors.identity import AGENT_HEADER
from greenroom.actors.openai import HARMLESS, MAX_N, StreamOptions, refuse_unsupported, wants_usage
from greenroom.actors.options import Options, sampling, stops, token_limit
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import (
    FinishReason,
    TextDelta,
    TokenLogprob,
    TurnDone,
    TurnRequest,
    Usage,
)

MAX_PROMPTS = 16
MAX_LOGPROBS = 5
DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint."""


class Unsupported(msgspec.Struct):
    """Parameters that would change the answer and are not implemented."""

    best_of: int | None = None
    suffix: str | None = None


class CompletionBody(Options):
    """The body of ``POST /v1/completions``."""

    model: str | None = None
    prompt: str | list[Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    echo: bool | None = None
    logprobs: int | None = None


KNOWN = HARMLESS.union(CompletionBody.__struct_fields__, Unsupported.__struct_fields__)


class CompletionCall(msgspec.Struct, frozen=True):
    """A valid request: one turn for each prompt, and how the answers travel."""

    turns: tuple[TurnRequest, ...]
    echoes: tuple[str, ...]
    model: str | None
    stream: bool
    include_usage: bool


def read_completion(body: bytes, *, agent_header: str | None, namespace: str) -> CompletionCall:
    """The request in ``body``. Raises ``InvalidRequest`` that names the field at fault."""
    if agent_header is not None:
        raise _refused(
            "Bare prompts belong to no agent; speak to agents by chat completions.", AGENT_HEADER
        )
    refuse_unknown(decode(body, dict[str, msgspec.Raw]), KNOWN)
    refuse_unsupported(decode(body, Unsupported))
    given = decode(body, CompletionBody)
    within("n", given.n, 1, MAX_N)
    within("logprobs", given.logprobs, 0, MAX_LOGPROBS)
    prompts = _prompts(given.prompt)
    drawn = msgspec.structs.replace(sampling(given), top_logprobs=given.logprobs)
    turns = tuple(
        TurnRequest(
            messages=(),
            prompt=prompt,
            namespace=namespace,
            max_tokens=token_limit("max_tokens", given.max_tokens) or DEFAULT_MAX_TOKENS,
            stop=stops(given),
            sampling=drawn,
            n=given.n or 1,
            priority=given.priority or "normal",
        )
        for prompt in prompts
    )
    return CompletionCall(
        turns,
        _echoes(given, prompts),
        given.model,
        bool(given.stream),
        wants_usage(given.stream_options, given.stream),
    )


def _prompts(given: str | list[Any] | None) -> list[str | tuple[int, ...]]:
    """Text, token ids, or a list of either."""
    if given is None or given in ("", []):
        raise InvalidRequest("prompt is missing.", param="prompt", code="missing_value")
    if isinstance(given, str):
        return [given]
    if all(_is_token(each) for each in given):
        return [tuple(given)]
    if len(given) > MAX_PROMPTS:
        raise InvalidRequest(
            f"prompt holds at most {MAX_PROMPTS} prompts.", param="prompt", code="out_of_range"
        )
    prompts: list[str | tuple[int, ...]] = []
    for n, each in enumerate(given):
        if isinstance(each, str) and each:
            prompts.append(each)
        elif isinstance(each, list) and each and all(_is_token(token) for token in each):
            prompts.append(tuple(each))
        else:
            raise InvalidRequest(
                f"prompt[{n}] must be text or token ids.", param=f"prompt[{n}]", code="invalid_type"
            )
    return prompts


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _echoes(given: CompletionBody, prompts: Sequence[str | tuple[int, ...]]) -> tuple[str, ...]:
    if not given.echo:
        return ("",) * len(prompts)
    if given.logprobs is not None:
        raise _refused("echo tells no logprobs of the prompt; ask for one of the two.", "echo")
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) < len(prompts):
        raise _refused("echo needs prompts as text.", "echo")
    return tuple(texts)


def _refused(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="unsupported_parameter")


class LegacyLogprobs(msgspec.Struct, frozen=True):
    """Tokens and how likely each was; ``text_offset`` in characters from the answer's begin."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class LegacyChoice(msgspec.Struct, frozen=True):
    """One answer, or the chunk's share of it."""

    text: str
    index: int
    finish_reason: FinishReason | None
    logprobs: LegacyLogprobs | None = None


class LegacyCompletion(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whole answers, or a chunk of them."""

    id: str
    created: int
    model: str
    choices: list[LegacyChoice]
    system_fingerprint: str
    object: Literal["text_completion"]
    usage: CompletionUsage | None = None
    greenroom: Told | None = None


class LegacyAnswer:
    """The identity that all parts of one response share."""

    def __init__(self, model: str, fingerprint: str, call: CompletionCall) -> None:
        self._id = f"cmpl-{uuid4().hex}"
        self._created = int(time.time())
        self._model = model
        self._fingerprint = fingerprint
        self._call = call
        self._offsets: dict[int, int] = {}
        self._used = Usage(0, 0, 0)

    def whole(
        self, turns: Sequence[tuple[TurnDone, list[list[TokenLogprob]] | None]]
    ) -> LegacyCompletion:
        """All answers to all prompts, in order."""
        choices: list[LegacyChoice] = []
        for (done, logprobs), echo in zip(turns, self._call.echoes, strict=True):
            for n, said in enumerate(answers(done)):
                index = len(choices)
                told_logprobs = None if logprobs is None else self._spelled(index, logprobs[n])
                choices.append(
                    LegacyChoice(echo + said.text, index, said.finish_reason, told_logprobs)
                )
            self._count(done)
        return self._object(choices, usage(self._used), told(turns[-1][0]))

    def opening(self, number: int) -> list[LegacyCompletion]:
        """The echo of prompt ``number``, where it is asked for."""
        echo = self._call.echoes[number]
        indices = [self._index(number, n) for n in range(self._call.turns[0].n)]
        return [self._object([LegacyChoice(echo, index, None)]) for index in indices if echo]

    def piece(self, number: int, event: TextDelta) -> LegacyCompletion | None:
        """More of an answer to prompt ``number``; None where nothing is to be seen yet."""
        if not (event.text or event.logprobs):
            return None
        index = self._index(number, event.choice)
        logprobs = self._spelled(index, event.logprobs) if event.logprobs else None
        return self._object([LegacyChoice(event.text, index, None, logprobs)])

    def closing(self, number: int, done: TurnDone) -> list[LegacyCompletion]:
        """Why each answer to prompt ``number`` ended; after the last prompt also the usage."""
        self._count(done)
        chunks = [
            self._object([LegacyChoice("", self._index(number, n), said.finish_reason)])
            for n, said in enumerate(answers(done))
        ]
        if self._call.include_usage and number == len(self._call.turns) - 1:
            chunks.append(self._object([], usage(self._used), told(done)))
        return chunks

    def _index(self, number: int, choice: int) -> int:
        return number * self._call.turns[0].n + choice

    def _count(self, done: TurnDone) -> None:
        one, more = self._used, done.usage
        self._used = Usage(
            one.prompt_tokens + more.prompt_tokens,
            one.completion_tokens + more.completion_tokens,
            one.cached_tokens + more.cached_tokens,
        )

    def _spelled(self, index: int, logprobs: Sequence[TokenLogprob]) -> LegacyLogprobs:
        offsets = []
        for each in logprobs:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(as_text(each.utf8))
        return LegacyLogprobs(
            [as_text(each.utf8) for each in logprobs],
            [each.logprob for each in logprobs],
            [{as_text(top.utf8): top.logprob for top in each.top} for each in logprobs],
            offsets,
        )

    def _object(
        self,
        choices: list[LegacyChoice],
        used: CompletionUsage | None = None,
        beyond: Told | None = None,
    ) -> LegacyCompletion:
        return LegacyCompletion(
            self._id,
            self._created,
            self._model,
            choices,
            self._fingerprint,
            "text_completion",
            used,
            beyond,
        )
