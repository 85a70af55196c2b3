"""How much is cached when clients behave as they do, over HTTP: what they drop, add, edit and send
at once. A tiny model whose answers are held to a few words, with Qwen3's manners or its own."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop
from mlx_lm.utils import load_tokenizer

from tests.front import Front, Message, Reply, fronted, said
from tests.test_reuse import NONCE, mannered
from tests.test_verbs import checkpoint

SYSTEM = said("system", "You are a terse assistant. " * 12)
WORDS = (" red", " green", " blue", " tea", " sun", " moss")
# Tokens that the default model has no use for, by the marks that they become.
MARKS = {"<issue_closed>": "<think>", "<gh_stars>": "</think>"}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("plain"), default_model_path)


@pytest.fixture(scope="module")
def qwen(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with Qwen3's chat template, and tokens for the marks of thoughts."""
    folder = mannered(plain, tmp_path_factory.mktemp("qwen") / "model", "qwen3")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        text = (folder / name).read_text()
        for before, after in MARKS.items():
            text = text.replace(f'"{before}"', f'"{after}"')
        (folder / name).unlink()
        (folder / name).write_text(text)
    return folder


def biased(model: Path, words: Sequence[str]) -> dict[str, Any]:
    """Sampling that draws these tokens alone, each as likely as the other."""
    tokenizer = load_tokenizer(model)
    ids = [tokenizer.encode(word, add_special_tokens=False)[0] for word in words]
    return {"temperature": 2.0, "seed": 5, "logit_bias": {str(each): 90 for each in ids}}


def play(home: Path, model: Path, scene: Callable[[Front], Awaitable[None]], **more: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(90), fronted(home, model, **more) as front:
            await scene(front)

    uvloop.run(main())


class Client:
    """Keeps the history. ``heard`` is what it makes of an answer before it sends that back."""

    def __init__(
        self,
        front: Front,
        sampling: dict[str, Any],
        heard: Callable[[str], str] = str,
        **body: Any,
    ) -> None:
        self.front = front
        self.heard = heard
        self.body = {**sampling, **body}
        self.history: list[Message] = [SYSTEM]

    async def ask(self, question: str, **more: Any) -> Reply:
        self.history.append(said("user", question))
        reply = await self.front.ask(self.history, **{**self.body, **more})
        self.history.append(said("assistant", self.heard(reply.content)))
        return reply


@pytest.mark.parametrize("agent", ["bob", None])
def test_stripped_reasoning_costs_at_most_the_last_turn(
    qwen: Path, tmp_path: Path, agent: str | None
) -> None:
    """Qwen3's template shows no thought of an earlier turn, whatever a client sends: what was
    sampled after the prompt is told anew, and all before it is cached."""
    sampling = biased(qwen, (*WORDS, *MARKS.values()))

    async def thoughtful(client: Client, question: str) -> tuple[Reply, Reply]:
        """A first answer, and one to the same question that has a thought and says something."""
        client.history.append(said("user", question))
        first = await client.front.ask(client.history, **client.body)
        for seed in range(300):
            reply = await client.front.ask(client.history, **{**client.body, "seed": seed})
            assert reply.cached == reply.prompt, "the same question once more"
            if reply.reasoning and reply.content and "think>" not in reply.content:
                client.history.append(said("assistant", reply.content))
                return first, reply
        raise AssertionError("it never thinks")

    async def scene(front: Front) -> None:
        client = Client(front, sampling, agent=agent)
        _, before = await thoughtful(client, "What is red?")
        for question in ("And blue?", "And green?"):
            said_last = client.history[-1]["content"]
            first, reply = await thoughtful(client, question)
            assert first.cached >= before.prompt, "all but the last turn"
            assert first.prompt - first.cached <= len(said_last.split()) + 20
            before = reply

    play(tmp_path, qwen, scene)


def test_reasoning_that_is_sent_back_is_recognised(qwen: Path, tmp_path: Path) -> None:
    """Within a turn of tools Qwen3 keeps its thoughts: a client that strips them costs nothing."""
    sampling = biased(qwen, (*WORDS, *MARKS.values()))

    async def scene(front: Front) -> None:
        for strips in (False, True):
            asked = [SYSTEM, said("user", f"Is it raining, {strips}?")]
            body = {**sampling, "tools": [WEATHER], "agent": f"agent-{strips}"}
            for seed in range(300):
                first = await front.ask(asked, **{**body, "seed": seed})
                if first.reasoning and first.content and "think>" not in first.content:
                    break
            answer = said("assistant", first.content)
            if not strips:
                answer["reasoning_content"] = first.reasoning
            # The template takes what a tool answered for no question: the thought stays.
            told = [*asked, answer, said("tool", "It is.", tool_call_id="call_1")]
            second = await front.ask(told, **body)
            assert second.cached >= first.prompt
            assert second.cached >= first.known - 2, "its thought too, as it was sampled"

    play(tmp_path, qwen, scene)


@pytest.mark.parametrize("agent", ["bob", None])
def test_a_changing_nonce_costs_nothing(plain: Path, tmp_path: Path, agent: str | None) -> None:
    async def scene(front: Front) -> None:
        client = Client(front, biased(plain, WORDS), agent=agent)
        known = 0
        for number, question in enumerate(("What is red?", "And blue?", "And green?")):
            nonce = NONCE.format(7919 * number)
            client.history[0] = said("system", nonce + SYSTEM["content"])
            reply = await client.ask(question)
            assert reply.cached == known
            known = reply.known

    play(tmp_path, plain, scene)


@pytest.mark.parametrize("heard", [str.strip, "\n{} \n".format], ids=["stripped", "padded"])
def test_white_space_costs_nothing(
    plain: Path, tmp_path: Path, heard: Callable[[str], str]
) -> None:
    async def scene(front: Front) -> None:
        client = Client(front, biased(plain, WORDS), heard)
        known = 0
        for question in ("What is red?", "And blue?", "And green?"):
            reply = await client.ask(question)
            assert reply.cached == known
            known = reply.known

    play(tmp_path, plain, scene)


def test_an_answer_in_other_tokens_than_the_tokenizers_keeps_its_own(
    plain: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(plain)

    async def scene(front: Front) -> None:
        client = Client(front, biased(plain, ("r", "e", "d", "er", "in")))
        first = await client.ask("What is red?")
        again = tokenizer.encode(first.content, add_special_tokens=False)
        assert len(again) < first.known - first.prompt, "the tokenizer would take fewer"
        second = await client.ask("And blue?")
        assert second.cached == first.known

    play(tmp_path, plain, scene)


def test_results_of_tools_cost_themselves(plain: Path, tmp_path: Path) -> None:
    async def scene(front: Front) -> None:
        client = Client(front, biased(plain, WORDS), tools=[WEATHER])
        forced = {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
        client.history.append(said("user", "Is it raining?"))
        free = {**client.body, "logit_bias": {}}
        first = await front.ask(client.history, **{**free, **forced})
        [call] = first.message["tool_calls"]
        assert call["function"]["name"] == "weather"
        calling = said("assistant", "", tool_calls=[call])
        result = said("tool", "It is.", tool_call_id=call["id"])
        second = await front.ask([*client.history, calling, result], **client.body)
        assert second.cached >= first.known - 1, "the call, as it was sampled"
        client.history += [calling, result, said("assistant", second.content)]
        third = await client.ask("And tomorrow?")
        assert third.cached == second.known

    play(tmp_path, plain, scene)


@pytest.mark.parametrize("agent", ["bob", None])
def test_an_edited_turn_is_a_branch_and_both_are_kept(
    plain: Path, tmp_path: Path, agent: str | None
) -> None:
    async def scene(front: Front) -> None:
        client = Client(front, biased(plain, WORDS), agent=agent)
        first = await client.ask("What is red?")
        second = await client.ask("And blue?")
        old = list(client.history)
        client.history[-2:] = []
        edited = await client.ask("And what would green be?")
        assert first.known <= edited.cached < edited.prompt
        new, client.history = client.history, old
        back = await client.ask("Go on.")
        assert back.cached == second.known
        client.history = new
        again = await client.ask("Go on.")
        assert again.cached == edited.known
        assert (back.agent, again.agent) == (second.agent, edited.agent)
        assert agent is None or edited.agent == agent

    play(tmp_path, plain, scene)


def test_a_system_prompt_that_two_bring_at_once_is_computed_once(
    plain: Path, tmp_path: Path
) -> None:
    """Also by who comes while it is being computed."""
    system = said("system", json.dumps([f"Rule {n}: be kind." for n in range(160)]))

    async def scene(front: Front) -> None:
        sampling = biased(plain, WORDS)
        before = await front.house.counters()
        first, *others = [
            asyncio.ensure_future(front.ask([system, said("user", f"I am {n}.")], **sampling))
            for n in range(3)
        ]
        replies = await asyncio.gather(first, *others)
        now = await front.house.counters()
        end = (await front.house.log("", replies[0].agent))[0].end
        assert end > 1000
        cached = sorted(reply.cached for reply in replies)
        assert cached[0] == 0
        assert all(each >= end for each in cached[1:])
        computed = now.prefill_tokens - before.prefill_tokens
        assert computed == sum(reply.prompt - reply.cached for reply in replies)
        assert computed < end + 3 * 40

    play(tmp_path, plain, scene)
