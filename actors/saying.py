"""What is said to an agent by name: the fields that a frame and a request have in common."""

from typing import Any

from greenroom.actors.conversation import Message, read_messages
from greenroom.actors.fields import shallow
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
from greenroom.runtime.records import TurnRequest

MAX_KEY_LENGTH = 256


class Saying(Options):
    """``content`` is one user message, ``messages`` are several; under one ``key`` they are said
    once. With ``progress`` a stream also tells how much of the prompt has been read."""

    content: str | None = None
    messages: list[Message] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | NamedTool | None = None
    response_format: FormatBody | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    key: str | None = None
    progress: bool = False


def read_saying(said: Saying, *, agent: str, namespace: str) -> TurnRequest:
    """The turn that is asked for. Raises ``InvalidRequest`` that names the field at fault."""
    messages = said.messages
    if said.content is not None:
        if messages is not None:
            raise InvalidRequest(
                "content and messages exclude each other.", param="content", code="invalid_value"
            )
        messages = [Message("user", said.content)]
    elif messages is None:
        raise InvalidRequest("content is missing.", param="content", code="missing_value")
    tools = read_tools(said.tools)
    may_call, forced = read_choice(said.tool_choice, tools, many=True)
    return TurnRequest(
        messages=read_messages(messages),
        mode="say",
        agent=agent,
        namespace=namespace,
        max_tokens=token_limit("max_tokens", said.max_tokens),
        stop=stops(said),
        sampling=sampling(said),
        tools=tools,
        may_call=may_call,
        constraint=forced or read_format(said.response_format),
        template_kwargs=shallow("chat_template_kwargs", said.chat_template_kwargs or {}),
        key=checked_key(said.key),
        priority=said.priority or "normal",
    )


def checked_key(key: str | None) -> str | None:
    """An idempotency key that is not too long to keep."""
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidRequest(
            f"key has 1 to {MAX_KEY_LENGTH} characters.", param="key", code="out_of_range"
        )
    return key
