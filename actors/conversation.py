"""Reading the messages of a request: roles, and content as text or as text parts."""

from collections.abc import Sequence

import msgspec

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import ChatMessage, Role

# "developer" is the newer name of "system".
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


class Part(msgspec.Struct):
    """One part of a message's content; only text can be read."""

    type: str = ""
    text: str | None = None


class Message(msgspec.Struct):
    """One message as it is sent; the defaults mean "missing", so that errors name the field."""

    role: str = ""
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


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
    if message.tool_calls:
        raise _unsupported(f"{path}.tool_calls", "Tool calls are not supported yet.")
    return ChatMessage(
        role=_ROLES[message.role],
        content=_text(message.content, f"{path}.content"),
        name=message.name,
    )


def _text(content: str | list[Part] | None, path: str) -> str:
    if content is None:
        raise InvalidRequest(f"{path} is missing.", param=path, code="missing_value")
    if isinstance(content, str):
        return content
    texts = []
    for n, part in enumerate(content):
        if part.type != "text":
            raise _unsupported(
                f"{path}[{n}].type", f"Content of type {part.type!r} is not supported: text only."
            )
        if part.text is None:
            where = f"{path}[{n}].text"
            raise InvalidRequest(f"{where} is missing.", param=where, code="missing_value")
        texts.append(part.text)
    return "".join(texts)


def _unsupported(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="unsupported_value")
