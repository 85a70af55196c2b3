"""A turn as frames: what a client writes for it, and the events that it reads back."""

from typing import Any

import msgspec

from greenroom.actors.frames import Done, Failed, Progress, ServerFrame, Started, Token, ToolFrame
from greenroom.actors.remote_errors import error_of
from greenroom.runtime.constraint import Constraint, ForcedCalls, JsonAnswer
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import (
    ChatMessage,
    Sampling,
    TextDelta,
    Tool,
    TurnDone,
    TurnEvent,
    TurnProgress,
    TurnRequest,
    TurnStarted,
)


def say_fields(request: TurnRequest) -> dict[str, Any]:
    """The fields of a ``say`` that asks for this turn, as ``actors/saying.py`` reads them.

    Raises InvalidRequest for what cannot be asked for from afar.
    """
    if request.mode != "say" or request.n != 1:
        raise InvalidRequest("One answer of one agent can be asked for here.", param="mode")
    fields = {
        "messages": [_message(message) for message in request.messages],
        "max_tokens": request.max_tokens,
        "stop": list(request.stop) or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request),
        "response_format": _form(request.constraint),
        "chat_template_kwargs": dict(request.template_kwargs) or None,
        "key": request.key,
        "priority": request.priority,
        **_sampling(request.sampling),
    }
    return {name: value for name, value in fields.items() if value is not None}


def event_of(frame: ServerFrame) -> TurnEvent | None:
    """The event that a frame of a turn tells; None for one that tells nothing new.

    Raises what a ``Failed`` tells.
    """
    match frame:
        case Started():
            return TurnStarted(frame.agent, frame.prompt_tokens, frame.cached_tokens)
        case Progress():
            return TurnProgress(frame.prompt_tokens, frame.done_tokens)
        case Token():
            return TextDelta(frame.text, frame.tokens, frame.reasoning)
        case ToolFrame():
            return TextDelta("", (), tool_calls=frame.calls)
        case Done():
            return TurnDone(
                agent=frame.agent,
                text=frame.text,
                finish_reason=frame.finish_reason,
                usage=frame.usage,
                timings=frame.timings,
                head=frame.head,
                notices=frame.notices,
                reasoning=frame.reasoning,
                tool_calls=frame.tool_calls,
            )
        case Failed():
            raise error_of(frame.error, status=frame.status, wait_s=frame.retry_after_s or 1.0)
        case _:
            return None


def _message(message: ChatMessage) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        fields["name"] = message.name
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        fields["reasoning_content"] = message.reasoning
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _choice(request: TurnRequest) -> str | dict[str, Any] | None:
    if not request.may_call:
        return "none" if request.tools else None
    match request.constraint:
        case ForcedCalls(name=None):
            return "required"
        case ForcedCalls(name):
            return {"type": "function", "function": {"name": name}}
        case _:
            return None


def _form(constraint: Constraint | None) -> dict[str, Any] | None:
    if not isinstance(constraint, JsonAnswer):
        return None
    return {"type": "json_schema", "json_schema": {"schema": dict(constraint.schema)}}


def _sampling(sampling: Sampling) -> dict[str, Any]:
    """The fields that differ from the defaults."""
    if sampling.top_logprobs is not None:
        raise InvalidRequest(
            "Log-probabilities are not told from afar.", param="top_logprobs", code="unsupported"
        )
    plain = msgspec.structs.asdict(sampling)
    given = {name: value for name, value in plain.items() if value != getattr(Sampling(), name)}
    if sampling.logit_bias:
        given["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return given
