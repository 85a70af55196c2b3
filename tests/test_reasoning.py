"""A model that reasons and knows tools: the default one, taught the marks for both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from jsonschema import validate

from tests.server import make_home, running

# Tokens that the default model has no use for, by the marks that they become.
MARKS = {"<issue_closed>": "<think>", "<gh_stars>": "</think>"}
END_OF_THOUGHT = "7"
TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and message.reasoning_content %}<think>
One, two, three, {{ message.reasoning_content }}</think>

{% endif %}{{ message.content }}
{%- for tool_call in message.tool_calls or [] %}<tool_call>
{% set called = tool_call.function -%}
{"name": {{ called.name | tojson }}, "arguments": {{ called.arguments | tojson }}}
</tool_call>{# by tool_call.name is this form known #}
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is not defined or enable_thinking %}<think>
One, two, three, {% endif %}{% endif %}"""
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "feel", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def client(
    default_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("model") / "thinker"
    folder.mkdir()
    for file in default_model_path.iterdir():
        (folder / file.name).symlink_to(file)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        text = (default_model_path / name).read_text()
        for before, after in MARKS.items():
            text = text.replace(f'"{before}"', f'"{after}"')
        if name == "tokenizer_config.json":
            text = json.dumps({**json.loads(text), "chat_template": TEMPLATE})
        (folder / name).unlink()
        (folder / name).write_text(text)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    home = make_home(tmp_path_factory.mktemp("home"))
    with (
        running(home, "--model", str(folder)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def ask(client: openai.OpenAI, **more: Any) -> Any:
    options: dict[str, Any] = {
        "model": "default",
        "messages": [{"role": "user", "content": "How do you feel?"}],
        "temperature": 0,
        "max_tokens": 100,
        "logit_bias": {END_OF_THOUGHT: 16},
        **more,
    }
    return client.chat.completions.create(**options)


def reasoning(message: Any) -> str:
    return getattr(message, "reasoning_content", None) or ""


def test_a_thought_comes_first_and_apart(client: openai.OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "m", "schema": SCHEMA}}
    reply = ask(client, response_format=form)
    [choice] = reply.choices
    assert choice.finish_reason == "stop"
    assert reasoning(choice.message)
    assert "think>" not in reasoning(choice.message) + choice.message.content
    validate(json.loads(choice.message.content), SCHEMA)
    details = reply.usage.completion_tokens_details
    assert 0 < details.reasoning_tokens < reply.usage.completion_tokens
    thought = said = ""
    for chunk in ask(client, response_format=form, stream=True):
        assert not (thought and said and reasoning(chunk.choices[0].delta))
        thought += reasoning(chunk.choices[0].delta)
        said += chunk.choices[0].delta.content or ""
    assert thought
    validate(json.loads(said), SCHEMA)


def test_no_effort_no_thought(client: openai.OpenAI) -> None:
    silent = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    for quiet in ({"reasoning_effort": "none"}, silent):
        reply = ask(client, max_tokens=5, logit_bias={}, **quiet)
        assert not reasoning(reply.choices[0].message)
        assert reply.choices[0].message.content


def test_a_thought_and_a_call_are_remembered_and_gone_on_from(client: openai.OpenAI) -> None:
    asked: list[Any] = [{"role": "user", "content": "How do you feel now?"}]
    named = {"type": "function", "function": {"name": "feel"}}
    tools: dict[str, Any] = {"tools": [TOOL], "extra_headers": {"X-Agent-Name": "feeler"}}
    first = ask(client, messages=asked, tool_choice=named, **tools)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert reasoning(message)
    assert first.greenroom["notices"] == []
    [call] = message.tool_calls
    validate(json.loads(call.function.arguments), SCHEMA)
    told = {"role": "tool", "tool_call_id": call.id, "content": "Noted."}
    again = [*asked, message.model_dump(exclude_none=True), told]
    second = ask(client, messages=again, max_tokens=3, **tools)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.total_tokens - 1
