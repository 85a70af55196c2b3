"""Where a chat template wants what it does not take as it comes. Pure.

Every template has its own idea of a conversation: some know no system role, some refuse two users
in a row, most of the older ones print no tools. What a template does not take is said in words
where it does take them, so that nothing a caller sent is lost and no conversation is refused.
"""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from greenroom.runtime.records import ChatMessage, Tool, ToolCall

SEPARATOR = "\n\n"
"""Between two texts that become one message."""
CALL_START, CALL_END = "<tool_call>", "</tool_call>"
"""Around a call, for models whose template has no form of its own: what most of them know best."""
RESULT_START, RESULT_END = "<tool_response>", "</tool_response>"
"""Around what a tool has answered, for the same models."""
_CALL_ID_LENGTH = 9  # of letters and digits: what the stricter templates ask for


class Traits(msgspec.Struct, frozen=True):
    """What a template takes as it comes; what it does not (False) is ``placed`` for it.

    ``system`` is a system message in front, ``late_system`` one later on; ``consecutive`` two users
    in a row; ``tools`` are the functions, ``calls`` an assistant's calls of them, ``many_calls``
    several at once, ``any_call_id`` with ids of any form; ``results`` what tools have answered.
    """

    system: bool = True
    late_system: bool = True
    consecutive: bool = True
    tools: bool = True
    calls: bool = True
    many_calls: bool = True
    any_call_id: bool = True
    results: bool = True


def placed(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], traits: Traits
) -> tuple[list[ChatMessage], tuple[Tool, ...]]:
    """The messages as the template takes them, and the tools that are left for it to print."""
    told = list(messages)
    if tools and not traits.tools:
        told, tools = _with_system(told, tools_in_words(tools)), ()
    if not (traits.calls and traits.results):
        told = [_in_words(m) for m in told]
    elif not traits.many_calls:
        told = list(_one_by_one(told))
    if not traits.any_call_id:
        told = [_with_short_ids(m) for m in told]
    if not traits.late_system:
        told = [*told[:1], *(_as_user(m) if m.role == "system" else m for m in told[1:])]
    if not traits.system:
        told = _system_first_said(told)
    if not traits.consecutive:
        told = _merged(told)
    return told, tuple(tools)


def tools_in_words(tools: Sequence[Tool]) -> str:
    """What a model is told of its tools where its template has no place for them."""
    lines = [msgspec.json.encode(as_function(tool)).decode() for tool in tools]
    return "\n".join(
        [
            "You can call these functions:",
            "<tools>",
            *lines,
            "</tools>",
            "To call one, answer with nothing but this, once for each call:",
            CALL_START,
            '{"name": the function\'s name, "arguments": an object of its arguments}',
            CALL_END,
        ]
    )


def as_function(tool: Tool) -> dict[str, object]:
    """A tool as templates and models expect it, in OpenAI's form."""
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters)
    return {"type": "function", "function": function}


def call_in_words(call: ToolCall) -> str:
    """A call as the model is asked to write it."""
    name = msgspec.json.encode(call.name).decode()
    arguments = call.arguments.strip() or "{}"
    return f'{CALL_START}\n{{"name": {name}, "arguments": {arguments}}}\n{CALL_END}'


def _with_system(messages: Sequence[ChatMessage], text: str) -> list[ChatMessage]:
    if messages and messages[0].role == "system":
        first = _saying(messages[0], messages[0].content + SEPARATOR + text)
        return [first, *messages[1:]]
    return [ChatMessage("system", text), *messages]


def _in_words(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        content = f"{RESULT_START}\n{message.content}\n{RESULT_END}"
        return ChatMessage("user", content)
    if message.tool_calls:
        parts = [message.content, *(call_in_words(call) for call in message.tool_calls)]
        content = "\n".join(part for part in parts if part)
        return msgspec.structs.replace(message, content=content, tool_calls=())
    return message


def _one_by_one(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    """Several calls at once become one call, its answer, the next call, and so on."""
    waiting: list[ChatMessage] = []
    for message in messages:
        if message.role != "tool":
            yield from waiting
            waiting = []
        if len(message.tool_calls) > 1:
            alone = [msgspec.structs.replace(message, tool_calls=(c,)) for c in message.tool_calls]
            waiting = [alone[0], *(_saying(each, "") for each in alone[1:])]
            continue
        calls = [m for m in waiting if m.tool_calls[0].id == message.tool_call_id]
        if calls:
            waiting.remove(calls[0])
            yield calls[0]
        yield message
    yield from waiting


def _with_short_ids(message: ChatMessage) -> ChatMessage:
    if not message.tool_calls and message.tool_call_id is None:
        return message
    calls = tuple(msgspec.structs.replace(c, id=_short(c.id)) for c in message.tool_calls)
    answered = None if message.tool_call_id is None else _short(message.tool_call_id)
    return msgspec.structs.replace(message, tool_calls=calls, tool_call_id=answered)


def _short(call_id: str) -> str:
    if len(call_id) == _CALL_ID_LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.blake2b(call_id.encode(), digest_size=8).hexdigest()[:_CALL_ID_LENGTH]


def _system_first_said(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The system prompt put in front of what the first user says."""
    if not messages or messages[0].role != "system":
        return list(messages)
    system, *rest = messages
    if rest and rest[0].role == "user":
        said = _saying(rest[0], system.content + SEPARATOR + rest[0].content)
        return [said, *rest[1:]]
    return [_as_user(system), *rest]


def _as_user(message: ChatMessage) -> ChatMessage:
    return msgspec.structs.replace(message, role="user")


def _merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Neighbours of one role become one message; calls and their answers stay apart."""
    merged: list[ChatMessage] = []
    for message in messages:
        before = merged[-1] if merged else None
        if before is not None and before.role == message.role and _is_text(before, message):
            merged[-1] = _saying(message, before.content + SEPARATOR + message.content)
        else:
            merged.append(message)
    return merged


def _is_text(*messages: ChatMessage) -> bool:
    return not any(m.tool_calls or m.role == "tool" for m in messages)


def _saying(message: ChatMessage, content: str) -> ChatMessage:
    return msgspec.structs.replace(message, content=content)
