"""Legacy completions: what is read, what is refused, and what clients get of the real model."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from greenroom.actors.legacy import CompletionCall, read_completion
from greenroom.runtime.errors import InvalidRequest
from tests.server import Server


def read(agent: str | None = None, **body: Any) -> CompletionCall:
    return read_completion(json.dumps(body).encode(), agent_header=agent, namespace="ours")


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Once", ["Once"]),
        ([1, 2], [(1, 2)]),
        (["Once", "Twice"], ["Once", "Twice"]),
        (["Once", [3, 4]], ["Once", (3, 4)]),
    ],
)
def test_prompts(prompt: Any, prompts: list[Any]) -> None:
    call = read(prompt=prompt, n=2, logprobs=3)
    assert [turn.prompt for turn in call.turns] == prompts
    assert {(turn.n, turn.max_tokens) for turn in call.turns} == {(2, 16)}
    assert all(turn.sampling.top_logprobs == 3 for turn in call.turns)
    assert all(turn.namespace == "ours" and not turn.messages for turn in call.turns)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [[1, -1]]}, "prompt[0]"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "logprobs": 6}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": [1], "echo": True}, "echo"),
        ({"prompt": "a", "n": 9}, "n"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "messages": []}, "messages"),
    ],
)
def test_what_is_refused_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**body)
    assert refused.value.param == param


def test_bare_prompts_belong_to_no_agent() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read("alice", prompt="a")
    assert refused.value.param == "X-Agent-Name"


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def complete(client: openai.OpenAI, prompt: Any, **more: Any) -> Any:
    options = {"model": "default", "temperature": 0, "max_tokens": 5, **more}
    return client.completions.create(prompt=prompt, **options)


def test_a_prompt_is_continued_as_it_is(client: openai.OpenAI) -> None:
    begun = "The capital of France is"
    complete(client, begun, max_tokens=1)  # from here on all go on from the same memory
    whole = complete(client, begun, echo=True)
    assert whole.choices[0].text.startswith(begun + " Paris")
    assert whole.usage.prompt_tokens == 5
    assert whole.usage.prompt_tokens_details.cached_tokens == 5
    chunks = list(
        complete(client, begun, echo=True, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 5


def test_several_prompts_several_answers_and_their_logprobs(client: openai.OpenAI) -> None:
    reply = complete(client, ["One, two,", [504, 22]], n=2, logprobs=2, temperature=1.0, seed=3)
    assert [c.index for c in reply.choices] == [0, 1, 2, 3]
    for choice in reply.choices:
        told = choice.logprobs
        assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == 5
        assert told.text_offset[:2] == [0, len(told.tokens[0])]
        assert all(len(top) <= 2 for top in told.top_logprobs)
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, [10_000_000])
    assert refused.value.param == "prompt"
