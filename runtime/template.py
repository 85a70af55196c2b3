"""A model's chat template: from messages to the text that the model reads.

The template is the model's own; see Hugging Face's "Chat templates" for what it may contain.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.frame import PLAIN, Frame
from greenroom.runtime.placement import Traits, as_function, placed
from greenroom.runtime.records import ChatMessage, ToolCall

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
        "strftime_now",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
# Templates ask for the date by calling this function, which transformers answers with today's. A
# macro of the same name in front of the template answers with the date of the frame.
_DATE_CALL = re.compile(r"strftime_now\(\s*(['\"])(?P<format>.*?)\1\s*\)")
_DATES = "greenroom_dates"
_PINNED = f"{{%+ macro strftime_now(format) -%}}{{{{ {_DATES}[format] }}}}{{%- endmacro +%}}"


class Template:
    """One model's chat template. Safe off the MLX thread.

    ``traits`` say what is ``placed`` for it; by default it takes everything as it comes.
    """

    def __init__(self, tokenizer: TokenizerWrapper, traits: Traits | None = None) -> None:
        self._tokenizer: Any = tokenizer
        self.traits = traits or Traits()
        own: Any = tokenizer.chat_template
        sources = list(own.values()) if isinstance(own, dict) else [own or ""]
        self._formats = {m["format"] for s in sources for m in _DATE_CALL.finditer(s)}

    @property
    def is_dated(self) -> bool:
        """Whether prompts depend on the date that they are rendered under."""
        return bool(self._formats)

    def with_traits(self, traits: Traits) -> "Template":
        """The same template, known to have these traits."""
        return Template(self._tokenizer, traits)

    def render(
        self, messages: Sequence[ChatMessage], frame: Frame = PLAIN, *, generate: bool = True
    ) -> str:
        """The prompt for ``messages``; with ``generate`` it ends where the answer begins.

        Raises InvalidRequest (``messages``) where the template refuses, and for a variable
        (``chat_template_kwargs``) that is not the caller's.
        """
        for name in frame.kwargs:
            if name in _RESERVED or name == _DATES:
                raise InvalidRequest(
                    f"{name} cannot be set: it is how the template is called",
                    param="chat_template_kwargs",
                    code="invalid_value",
                )
        told, tools = placed(messages, frame.tools, self.traits)
        functions = [as_function(tool) for tool in tools] or None
        try:
            text = self._tokenizer.apply_chat_template(
                as_template_messages(told),
                tools=functions,
                tokenize=False,
                add_generation_prompt=generate,
                **{**frame.kwargs, **self._dates(frame.date, functions)},
            )
        # A template is code: what it makes of a caller's data may go wrong in any of these ways.
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise InvalidRequest(
                f"this model's chat template refuses these messages: {error}",
                param="messages",
                code="template_refused",
            ) from error
        return str(text)

    def _dates(self, date: str, functions: list[dict[str, object]] | None) -> dict[str, Any]:
        """What makes the template print ``date``."""
        if not self._formats:
            return {}
        then = datetime.fromisoformat(date) if date else datetime.now().astimezone()
        source = self._tokenizer.get_chat_template(None, functions)
        return {
            "chat_template": _PINNED + source,
            _DATES: {format_: then.strftime(format_) for format_ in self._formats},
        }


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


def _as_template_call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        arguments = call.arguments  # a model may write anything; the template prints it as it is
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def num_characters(message: ChatMessage) -> int:
    """How much of a message a template may print."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return len(message.content) + calls
