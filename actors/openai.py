"""OpenAI's chat completions: from the request's body to a turn."""

from collections.abc import Mapping
from typing import Any

import msgspec

from greenroom.actors.conversation import Message, read_messages
from greenroom.actors.fields import decode, refuse_unknown, shallow, within
from greenroom.actors.identity import AGENT_HEADER, session_hint, speaker
from greenroom.actors.options import Options, sampling, stops, token_limit
from greenroom.actors.tooling import (
    FormatBody,
    NamedTool,
    ToolBody,
    read_choice,
    read_format,
    read_tools,
)
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import Priority, Sampling, TurnRequest

MAX_N = 8
MAX_TOP_LOGPROBS = 20

# Accepted and without effect here: they are about billing, storing or tracing elsewhere, or hints.
HARMLESS = frozenset(
    {
        "metadata",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "user",
    }
)


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Unsupported(msgspec.Struct):
    """Parameters that would change the answer and are not implemented.

    A client may send them with a value that asks for nothing; any other is refused by name.
    """

    audio: Any = None
    function_call: Any = None
    functions: list[msgspec.Raw] | None = None
    modalities: list[str] | None = None
    prediction: Any = None
    verbosity: str | None = None
    web_search_options: Any = None


class Conversation(msgspec.Struct):
    """A conversation by its id."""

    id: str


class ChatBody(Options):
    """The body of ``POST /v1/chat/completions``.

    With ``previous_response_id`` (the head that an answer has told) or a ``conversation`` the
    messages are only what is new: what came before is remembered.
    """

    model: str | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    agent: str | None = None
    prompt_cache_key: str | None = None
    previous_response_id: str | None = None
    conversation: str | Conversation | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: FormatBody | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    service_tier: str | None = None


KNOWN = HARMLESS.union(ChatBody.__struct_fields__, Unsupported.__struct_fields__)

# Of OpenAI's tiers those that mean anything on one's own machine.
_TIERS: dict[str, Priority] = {"priority": "high", "flex": "low"}

# The values that ask for nothing; anything absent from this table has None only.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "verbosity": ("medium",),
}
_INSTEAD = {"functions": "tools", "function_call": "tool_choice"}
_NO_THOUGHT = ("none", "minimal")


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
    refuse_unsupported(decode(body, Unsupported))
    chat = decode(body, ChatBody)
    agent, model = speaker(headers.get(AGENT_HEADER.lower()), chat.agent, chat.model)
    within("n", chat.n, 1, MAX_N)
    tools = read_tools(chat.tools)
    many = chat.parallel_tool_calls is not False
    may_call, forced = read_choice(chat.tool_choice, tools, many=many)
    conversation = _conversation(chat)
    is_continued = conversation is not None or chat.previous_response_id is not None
    turn = TurnRequest(
        messages=read_messages(chat.messages),
        mode="say" if is_continued else "chat",
        agent=agent,
        namespace=namespace,
        session=session_hint(headers, chat.prompt_cache_key, conversation),
        follows=chat.previous_response_id,
        max_tokens=_max_tokens(chat),
        stop=stops(chat),
        sampling=_sampling(chat),
        tools=tools,
        may_call=may_call,
        # A call that is forced comes before the form of what is said.
        constraint=forced or read_format(chat.response_format),
        template_kwargs=_template_kwargs(chat),
        n=chat.n or 1,
        priority=chat.priority or _TIERS.get(chat.service_tier or "", "normal"),
    )
    return ChatCall(turn, model, bool(chat.stream), wants_usage(chat.stream_options, chat.stream))


def _conversation(chat: ChatBody) -> str | None:
    """The id of the conversation that is meant, if any."""
    told = chat.conversation
    if told is None:
        return None
    if chat.previous_response_id is not None:
        raise InvalidRequest(
            "conversation and previous_response_id exclude each other.",
            param="conversation",
            code="invalid_value",
        )
    found = told if isinstance(told, str) else told.id
    if not found.strip():
        raise InvalidRequest("conversation is empty.", param="conversation", code="empty_string")
    return found


def wants_usage(options: StreamOptions | None, stream: bool | None) -> bool:
    """Whether a stream ends with its usage; raises ``InvalidRequest`` where there is no stream."""
    if options is not None and not stream:
        raise InvalidRequest(
            "stream_options needs stream to be true.", param="stream_options", code="invalid_value"
        )
    return options is not None and bool(options.include_usage)


def refuse_unsupported(asked: msgspec.Struct) -> None:
    """Raise ``InvalidRequest`` for the first field of ``asked`` that asks for anything."""
    for param in asked.__struct_fields__:
        value = getattr(asked, param)
        if value is None or value in _NEUTRAL.get(param, ()):
            continue
        instead = f"send {_INSTEAD[param]} instead" if param in _INSTEAD else "leave it out"
        raise InvalidRequest(
            f"{param} is not supported here; {instead}.", param=param, code="unsupported_parameter"
        )


def _sampling(chat: ChatBody) -> Sampling:
    within("top_logprobs", chat.top_logprobs, 0, MAX_TOP_LOGPROBS)
    if chat.top_logprobs and not chat.logprobs:
        raise InvalidRequest(
            "top_logprobs needs logprobs to be true.", param="top_logprobs", code="invalid_value"
        )
    wanted = (chat.top_logprobs or 0) if chat.logprobs else None
    return msgspec.structs.replace(sampling(chat), top_logprobs=wanted)


def _template_kwargs(chat: ChatBody) -> dict[str, Any]:
    """The template's variables; an effort of "none" or "minimal" also turns thinking off."""
    given: dict[str, Any] = {}
    if chat.reasoning_effort is not None:
        given["reasoning_effort"] = chat.reasoning_effort
        given["enable_thinking"] = chat.reasoning_effort not in _NO_THOUGHT
    return given | shallow("chat_template_kwargs", chat.chat_template_kwargs or {})


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
