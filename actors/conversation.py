"""Reading the messages of a request: roles, text, and tools that were called and have answered."""

from collections.abc import Sequence
from typing import Any

import msgspec

from greenroom.actors.fields import shallow
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import ChatMessage, Role, ToolCall

# "developer" is the newer name of "system".
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
# Text by its names in chat completions and in responses.
_TEXTS = frozenset({"text", "input_text", "output_text"})


class Part(msgspec.Struct):
    """One part of a message's content: text, or an assistant's refusal, which is text too."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class Function(msgspec.Struct):
    """What was called; ``arguments`` is JSON text by the book, and an object from some clients."""

    name: str = ""
    arguments: str | dict[str, Any] = "{}"


class Call(msgspec.Struct):
    """A call of a tool, as the assistant made it."""

    id: str = ""
    type: str = "function"
    function: Function = msgspec.field(default_factory=Function)


class Message(msgspec.Struct):
    """One message as it is sent; the defaults mean "missing", so that errors name the field."""

    role: str = ""
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


def read_messages(
    messages: Sequence[Message] | None, *, roles: Sequence[str] = tuple(_ROLES)
) -> tuple[ChatMessage, ...]:
    """The messages as the house takes them.

    Raises ``InvalidRequest`` with the path of what is missing, empty or cannot be served.
    """
    if not messages:
        raise InvalidRequest(
            "messages must hold at least one message.", param="messages", code="empty_array"
        )
    return tuple(_message(message, f"messages[{n}]", roles) for n, message in enumerate(messages))


def _message(message: Message, path: str, roles: Sequence[str]) -> ChatMessage:
    if message.role not in roles:
        known = ", ".join(roles)
        what = "is missing" if not message.role else f"is {message.role!r}"
        raise InvalidRequest(
            f"{path}.role {what}; roles served here: {known}.",
            param=f"{path}.role",
            code="invalid_value",
        )
    role = _ROLES[message.role]
    if message.tool_calls and role != "assistant":
        raise InvalidRequest(
            f"{path}.tool_calls: only the assistant calls tools.",
            param=f"{path}.tool_calls",
            code="invalid_value",
        )
    if role == "tool" and not message.tool_call_id:
        raise _missing(f"{path}.tool_call_id")
    calls = [_call(c, f"{path}.tool_calls[{n}]") for n, c in enumerate(message.tool_calls or ())]
    reasoning = message.reasoning_content or message.reasoning or None
    content = message.content
    if content is None and role == "assistant":
        content = message.refusal
        if content is None and (calls or reasoning):
            content = ""
    return ChatMessage(
        role=role,
        content=_text(content, f"{path}.content"),
        name=message.name,
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id if role == "tool" else None,
        reasoning=reasoning if role == "assistant" else None,
    )


def _call(call: Call, path: str) -> ToolCall:
    if call.type != "function":
        raise _unsupported(f"{path}.type", f"Only functions can be called, not {call.type!r}.")
    if not call.id:
        raise _missing(f"{path}.id")
    if not call.function.name:
        raise _missing(f"{path}.function.name")
    arguments = call.function.arguments
    if not isinstance(arguments, str):
        deep = f"{path}.function.arguments"
        arguments = msgspec.json.encode(shallow(deep, arguments)).decode()
    return ToolCall(call.id, call.function.name, arguments)


def _text(content: str | list[Part] | None, path: str) -> str:
    if content is None:
        raise _missing(path)
    if isinstance(content, str):
        return content
    return "".join(_part(part, f"{path}[{n}]") for n, part in enumerate(content))


def _part(part: Part, path: str) -> str:
    if part.type == "refusal" and part.refusal is not None:
        return part.refusal
    if part.type not in _TEXTS:
        raise _unsupported(
            f"{path}.type", f"{path} is {part.type!r}: images, audio and files cannot be read here."
        )
    if part.text is None:
        raise _missing(f"{path}.text")
    return part.text


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path} is missing.", param=path, code="missing_value")


def _unsupported(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="unsupported_value")
