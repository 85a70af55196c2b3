"""The frames of the WebSocket, as docs/websocket.md describes them."""

from typing import Literal

import msgspec

from greenroom.actors.conversation import Message, read_messages
from greenroom.actors.fields import decode, refuse_unknown
from greenroom.actors.options import Options, sampling, stops, token_limit
from greenroom.actors.problems import ErrorBody
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import FinishReason, Timings, TurnRequest, Usage

SUBPROTOCOL = "greenroom.v1"
"""The version of these frames, as a client may ask for it in the handshake."""
MAX_ID_LENGTH = 128


class SayFrame(Options):
    """The client speaks to the agent: ``content`` is one user message, ``messages`` several."""

    type: Literal["say"] = "say"
    id: str | None = None
    content: str | None = None
    messages: list[Message] | None = None


class CancelFrame(msgspec.Struct):
    """The client gives up the turn ``id``, or the running one and all that wait behind it."""

    type: Literal["cancel"] = "cancel"
    id: str | None = None


class _Kind(msgspec.Struct):
    type: str = ""
    id: str | None = None


class Say(msgspec.Struct, frozen=True):
    """A valid ``say``: the turn and the id that its frames carry."""

    id: str | None
    turn: TurnRequest


class Started(msgspec.Struct, frozen=True, tag_field="type", tag="started"):
    """The stage has taken the turn."""

    id: str | None
    agent: str
    prompt_tokens: int
    cached_tokens: int


class Token(msgspec.Struct, frozen=True, tag_field="type", tag="token"):
    """New text and the token ids behind it; ``index`` is that of the first of them in the turn."""

    id: str | None
    text: str
    tokens: tuple[int, ...]
    index: int


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """The turn ended, and is on disk where durability asks for it."""

    id: str | None
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None


class Cancelled(msgspec.Struct, frozen=True, tag_field="type", tag="cancelled"):
    """The turn was given up at the client's wish; nothing of it follows."""

    id: str | None


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A frame or a turn went wrong; the socket stays open."""

    id: str | None
    error: ErrorBody


ServerFrame = Started | Token | Done | Cancelled | Failed

_SAY_FIELDS = frozenset(SayFrame.__struct_fields__)
_CANCEL_FIELDS = frozenset(CancelFrame.__struct_fields__)


class BadFrame(InvalidRequest):
    """A client's frame cannot be served; ``frame_id`` is its id where one could be read."""

    def __init__(self, cause: InvalidRequest, frame_id: str | None) -> None:
        super().__init__(str(cause), param=cause.param, code=cause.code)
        self.frame_id = frame_id


def read_frame(text: str | bytes, *, agent: str, namespace: str) -> Say | CancelFrame:
    """The client's frame. Raises ``BadFrame`` that names the field at fault."""
    frame_id: str | None = None
    try:
        kind = decode(text, _Kind)
        frame_id = _checked_id(kind.id)
        fields = decode(text, dict[str, msgspec.Raw])
        if kind.type == "say":
            refuse_unknown(fields, _SAY_FIELDS)
            return _say(decode(text, SayFrame), agent, namespace)
        if kind.type == "cancel":
            refuse_unknown(fields, _CANCEL_FIELDS)
            return decode(text, CancelFrame)
        raise InvalidRequest(
            f"type must be say or cancel, not {kind.type!r}.", param="type", code="invalid_value"
        )
    except InvalidRequest as error:
        raise BadFrame(error, frame_id) from None


def _say(frame: SayFrame, agent: str, namespace: str) -> Say:
    messages = frame.messages
    if frame.content is not None:
        if messages is not None:
            raise InvalidRequest(
                "content and messages exclude each other.", param="content", code="invalid_value"
            )
        messages = [Message("user", frame.content)]
    elif messages is None:
        raise InvalidRequest("content is missing.", param="content", code="missing_value")
    turn = TurnRequest(
        messages=read_messages(messages),
        mode="say",
        agent=agent,
        namespace=namespace,
        max_tokens=token_limit("max_tokens", frame.max_tokens),
        stop=stops(frame),
        sampling=sampling(frame),
    )
    return Say(frame.id, turn)


def _checked_id(frame_id: str | None) -> str | None:
    if frame_id is not None and len(frame_id) > MAX_ID_LENGTH:
        raise InvalidRequest(
            f"id has at most {MAX_ID_LENGTH} characters.", param="id", code="out_of_range"
        )
    return frame_id
