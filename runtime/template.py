"""A model's chat template: from messages to the text that the model reads.

The template is the model's own; see Hugging Face's "Chat templates" for what it may contain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import ChatMessage, Tool, ToolCall

# What a caller's variables must not stand for: they are how the template is called.
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


class Frame(msgspec.Struct, frozen=True):
    """What a template renders beside the messages: tools, and its other variables."""

    tools: tuple[Tool, ...] = ()
    kwargs: Mapping[str, Any] = {}


PLAIN = Frame()
"""No tools and no variables."""


class Template:
    """One model's chat template. Safe off the MLX thread."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer: Any = tokenizer

    def render(
        self, messages: Sequence[ChatMessage], frame: Frame = PLAIN, *, generate: bool = True
    ) -> str:
        """The prompt for ``messages``; with ``generate`` it ends where the answer begins.

        Raises InvalidRequest (``messages``) where the template refuses, as some do for roles that
        do not alternate, and for a variable (``chat_template_kwargs``) that is not the caller's.
        """
        for name in frame.kwargs:
            if name in _RESERVED:
                raise InvalidRequest(
                    f"{name} cannot be set: it is how the template is called",
                    param="chat_template_kwargs",
                    code="invalid_value",
                )
        try:
            text = self._tokenizer.apply_chat_template(
                as_template_messages(messages),
                tools=[as_template_tool(t) for t in frame.tools] or None,
                tokenize=False,
                add_generation_prompt=generate,
                **frame.kwargs,
            )
        except TemplateError as error:
            raise InvalidRequest(
                f"this model's chat template refuses these messages: {error}",
                param="messages",
                code="template_refused",
            ) from error
        return str(text)


def as_template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as templates expect them, in OpenAI's form; arguments are objects, not JSON text.

    A tool's answer has the name of the tool, since some templates print it.
    """
    called: dict[str, str] = {}
    plain: list[dict[str, Any]] = []
    for message in messages:
        called.update((call.id, call.name) for call in message.tool_calls)
        plain.append(_as_template_message(message, called))
    return plain


def _as_template_message(message: ChatMessage, called: Mapping[str, str]) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [_as_template_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.role == "tool":
        name = message.name or called.get(message.tool_call_id or "")
        plain.update({} if name is None else {"name": name})
    if message.reasoning is not None:
        plain["reasoning_content"] = message.reasoning
    return plain


def as_template_tool(tool: Tool) -> dict[str, Any]:
    """A tool as templates expect it, in OpenAI's form."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = dict(tool.parameters)
    return {"type": "function", "function": function}


def num_characters(message: ChatMessage) -> int:
    """How much of a message a template may print."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.content) + calls


def _as_template_call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        arguments = call.arguments  # a model may write anything; the template prints it as it is
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
