"""The frames of the WebSocket, as docs/websocket.md describes them."""

import msgspec

from greenroom.actors.problems import ErrorBody, Problem
from greenroom.runtime.records import FinishReason, Timings, ToolCall, ToolCallDelta, Usage

SUBPROTOCOL = "greenroom.v1"
"""The version of these frames, as a client may ask for it in the handshake."""


class Started(msgspec.Struct, frozen=True, tag_field="type", tag="started"):
    """The stage has taken the turn."""

    id: str | None
    agent: str
    prompt_tokens: int
    cached_tokens: int
    seq: int


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """How much of the prompt has been read, where a ``say`` asked to be told."""

    id: str | None
    agent: str
    prompt_tokens: int
    done_tokens: int
    seq: int


class Token(msgspec.Struct, frozen=True, tag_field="type", tag="token"):
    """New text and the token ids behind it; ``index`` is that of the first of them in the turn.

    ``reasoning`` is text that the model thought aloud, and is not part of the answer.
    """

    id: str | None
    agent: str
    text: str
    reasoning: str
    tokens: tuple[int, ...]
    index: int
    seq: int


class ToolFrame(msgspec.Struct, frozen=True, tag_field="type", tag="tool"):
    """More of the calls of tools that the answer makes; ``done`` has them whole."""

    id: str | None
    agent: str
    calls: tuple[ToolCallDelta, ...]
    seq: int


class UsageFrame(msgspec.Struct, frozen=True, tag_field="type", tag="usage"):
    """What the turn took in tokens; ``done`` follows."""

    id: str | None
    agent: str
    usage: Usage
    seq: int


class Done(msgspec.Struct, frozen=True, tag_field="type", tag="done"):
    """The turn ended, and is on disk where durability asks for it."""

    id: str | None
    agent: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    head: str | None
    notices: tuple[str, ...]
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    seq: int


class Cancelled(msgspec.Struct, frozen=True, tag_field="type", tag="cancelled"):
    """The turn was given up at the client's wish; nothing of it follows."""

    id: str | None
    agent: str


class HeardFrame(msgspec.Struct, frozen=True, tag_field="type", tag="heard"):
    """What was told has reached the agent, which takes it in in the background."""

    id: str | None
    agent: str


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A frame or a turn went wrong; the socket stays open.

    ``status`` is what the answer to a request would have had, ``retry_after_s`` its Retry-After.
    """

    id: str | None
    agent: str | None
    error: ErrorBody
    status: int = 500
    retry_after_s: int | None = None


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to a ping."""

    id: str | None


def failed(told: Problem, frame_id: str | None, agent: str | None) -> Failed:
    """A problem as a frame."""
    return Failed(frame_id, agent, told.error, told.status, told.retry_after_s)


TurnFrame = Started | Progress | Token | ToolFrame | UsageFrame | Done | Cancelled | Failed
ServerFrame = TurnFrame | HeardFrame | Pong
Last = Done | Cancelled | Failed
"""What a turn ends with."""
