"""OpenAI's chat completions: from the request's body to a turn."""

from collections.abc import Mapping
from typing import Any

import msgspec

from greenroom.actors.conversation import Message, read_messages
from greenroom.actors.fields import decode, refuse_unknown
from greenroom.actors.identity import AGENT_HEADER, session_hint, speaker
from greenroom.actors.options import Options, sampling, stops, token_limit
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import TurnRequest

# Accepted and without effect here: they are about billing, storing or tracing elsewhere, or hints.
HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ResponseFormat(msgspec.Struct):
    """The shape of the answer; only free text is served."""

    type: str = "text"


class Unsupported(msgspec.Struct):
    """Parameters that would change the answer and are not implemented.

    A client may send them with a value that asks for nothing; any other is refused by name.
    """

    audio: Any = None
    chat_template_kwargs: dict[str, msgspec.Raw] | None = None
    frequency_penalty: float | None = None
    function_call: Any = None
    functions: list[msgspec.Raw] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    n: int | None = None
    prediction: Any = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    repetition_penalty: float | None = None
    response_format: ResponseFormat | None = None
    tool_choice: Any = None
    tools: list[msgspec.Raw] | None = None
    top_logprobs: int | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class ChatBody(Options):
    """The body of ``POST /v1/chat/completions``."""

    model: str | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    agent: str | None = None
    prompt_cache_key: str | None = None


KNOWN = HARMLESS.union(ChatBody.__struct_fields__, Unsupported.__struct_fields__)

# The values that ask for nothing; anything absent from this table has None only.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "chat_template_kwargs": ({},),
    "frequency_penalty": (0.0,),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0.0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1.0,),
    "response_format": (ResponseFormat(),),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}


class ChatCall(msgspec.Struct, frozen=True):
    """A valid chat request: the turn it asks for and how the answer travels."""

    turn: TurnRequest
    model: str | None
    stream: bool
    include_usage: bool


def read_chat(body: bytes, *, headers: Mapping[str, str], namespace: str) -> ChatCall:
    """The chat request in ``body``; ``headers`` may say who speaks, by names in lower case.

    Raises ``InvalidRequest`` that names the field at fault.
    """
    refuse_unknown(decode(body, dict[str, msgspec.Raw]), KNOWN)
    _refuse_unsupported(decode(body, Unsupported))
    chat = decode(body, ChatBody)
    agent, model = speaker(headers.get(AGENT_HEADER.lower()), chat.agent, chat.model)
    stream = bool(chat.stream)
    if chat.stream_options is not None and not stream:
        raise InvalidRequest(
            "stream_options needs stream to be true.", param="stream_options", code="invalid_value"
        )
    turn = TurnRequest(
        messages=read_messages(chat.messages),
        agent=agent,
        namespace=namespace,
        session=session_hint(headers, chat.prompt_cache_key),
        max_tokens=_max_tokens(chat),
        stop=stops(chat),
        sampling=sampling(chat),
    )
    usage = chat.stream_options is not None and bool(chat.stream_options.include_usage)
    return ChatCall(turn, model, stream, usage)


def _refuse_unsupported(asked: Unsupported) -> None:
    for param in asked.__struct_fields__:
        value = getattr(asked, param)
        if value is None or value in _NEUTRAL.get(param, ()):
            continue
        raise InvalidRequest(
            f"{param} is not supported here yet; leave it out.",
            param=param,
            code="unsupported_parameter",
        )


def _max_tokens(chat: ChatBody) -> int | None:
    """The newer name counts; both are fine as long as they agree."""
    newer = token_limit("max_completion_tokens", chat.max_completion_tokens)
    older = token_limit("max_tokens", chat.max_tokens)
    if newer is not None and older is not None and newer != older:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens disagree: send one.",
            param="max_tokens",
            code="invalid_value",
        )
    return newer if newer is not None else older
