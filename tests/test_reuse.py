"""How much is cached when clients behave as they do: whole houses, with the real tokenizer.

The model is a tiny random one whose answers are held to a few words by biases, so that every figure
here is the same on every machine. ``cached_tokens`` is what needed no forward pass.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from mlx_lm.utils import load_tokenizer

from greenroom.actors.agent_messages import AgentKey
from greenroom.actors.app import open_house
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Commit
from greenroom.runtime.frame import Frame
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import (
    ChatMessage,
    Sampling,
    Tool,
    ToolCall,
    TurnDone,
    TurnRequest,
)
from tests.manners import source
from tests.menagerie import config_of
from tests.zoo import save_checkpoint

SYSTEM = "You are a terse assistant. " * 8
NONCE = "x-anthropic-billing-header: cc_version=2.1.177.{0:03x}; cc_entrypoint=cli; cch={0:05x};\n"
WEATHER = Tool("weather", "The weather there.", {"type": "object", "properties": {}})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    config = {
        **config_of("llama"),
        "model_type": "llama",
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
    }
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


@pytest.fixture(scope="module")
def terse(default_model_path: Path) -> Sampling:
    """Answers of nine words, each of one token."""
    tokenizer = load_tokenizer(default_model_path)
    words = [" red", " green", " blue", " tea", " sun", " moss"]
    ids = [tokenizer.encode(word, add_special_tokens=False)[0] for word in words]
    return Sampling(temperature=4.0, seed=5, logit_bias=tuple((each, 90.0) for each in ids))


def mannered(model: Path, folder: Path, family: str) -> Path:
    """The same checkpoint with the chat template of a family."""
    folder.mkdir()
    for file in model.iterdir():
        if not file.name.startswith("chat_template"):
            (folder / file.name).symlink_to(file)
    config = msgspec.json.decode((model / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_bytes(
        msgspec.json.encode({**config, "chat_template": source(family)})
    )
    return folder


def play(home: Path, model: Path, *scenes: Any, **changes: str) -> None:
    """Each scene in a house of its own on the same home: between two there is a restart."""
    overrides = {"home": str(home), "model.name": str(model), "memory.codec": "float"}
    overrides |= {name.replace("__", "."): value for name, value in changes.items()}
    settings = load_settings(overrides=overrides).settings

    async def main() -> None:
        for scene in scenes:
            async with open_house(settings) as house:
                await scene(house)

    uvloop.run(main())


class Client:
    """Keeps the history, as clients of chat completions do."""

    def __init__(self, sampling: Sampling, system: str | None = SYSTEM, **request: Any) -> None:
        self.history = [] if system is None else [ChatMessage("system", system)]
        self.sampling = sampling
        self.request = {"max_tokens": 9, **request}

    def next(self, content: str) -> TurnRequest:
        """The request that would ask this."""
        return self.asking([*self.history, ChatMessage("user", content)])

    def asking(self, messages: Sequence[ChatMessage]) -> TurnRequest:
        """A request with a history."""
        return TurnRequest(
            messages=tuple(messages), mode="chat", sampling=self.sampling, **self.request
        )

    async def send(self, house: Playhouse, messages: Sequence[ChatMessage]) -> TurnDone:
        request = self.asking(messages)
        async with opened(house, request) as turn:
            return await turn.done()

    async def ask(self, house: Playhouse, content: str) -> TurnDone:
        self.history.append(ChatMessage("user", content))
        done = await self.send(house, self.history)
        self.history.append(ChatMessage("assistant", done.text))
        return done


def known(done: TurnDone) -> int:
    """All tokens of a turn: each was computed, the last one too."""
    return done.usage.prompt_tokens + done.usage.completion_tokens


def cached(done: TurnDone) -> int:
    return done.usage.cached_tokens


def answered(history: Sequence[ChatMessage], content: str) -> list[ChatMessage]:
    """The history with another text for its last answer."""
    return [*history[:-1], ChatMessage("assistant", content)]


@pytest.mark.parametrize("agent", ["bob", None])
def test_an_exact_history_costs_what_is_new(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None
) -> None:
    """All of the turn before is cached, its answer too, also after a restart."""
    client = Client(terse, agent=agent)
    told: list[TurnDone] = []

    async def scene(house: Playhouse) -> None:
        told.append(await client.ask(house, "What is red?"))
        told.append(await client.ask(house, "And blue?"))

    play(tmp_path, model, scene, scene)
    assert [cached(done) for done in told] == [0, *map(known, told[:-1])]
    assert len({done.agent for done in told}) == 1, "an agent without a name is known again"


@pytest.mark.parametrize("agent", ["bob", None])
@pytest.mark.parametrize("change", ["{} ", "\n{}\n"])
def test_spaces_that_a_client_adds_or_strips_cost_nothing(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None, change: str
) -> None:
    client = Client(terse, agent=agent)

    async def scene(house: Playhouse) -> None:
        first = await client.ask(house, "What is red?")
        client.history = answered(client.history, change.format(first.text))
        second = await client.ask(house, "And blue?")
        assert cached(second) == known(first)
        client.history = answered(client.history, change.format(second.text))
        third = await client.ask(house, "And green?")
        assert cached(third) == known(second)
        assert first.agent == second.agent == third.agent

    play(tmp_path, model, scene)


@pytest.mark.parametrize("agent", ["bob", None])
def test_an_answer_of_which_a_client_sends_only_the_end_costs_that_answer(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None
) -> None:
    """As clients do that strip reasoning: all that came before the answer is cached."""
    client = Client(terse, agent=agent)

    async def scene(house: Playhouse) -> None:
        asked = []
        for question in ("What is red?", "And blue?", "And green?"):
            asked.append(await client.ask(house, question))
            last = asked[-1].text.split()
            client.history = answered(client.history, " ".join(last[-3:]))
        for before, after in itertools.pairwise(asked):
            assert cached(after) >= before.usage.prompt_tokens
            assert after.usage.prompt_tokens - cached(after) < 24, "the answer and the question"

    play(tmp_path, model, scene)


@pytest.mark.parametrize("agent", ["bob", None])
def test_a_nonce_in_the_system_prompt_costs_nothing(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None
) -> None:
    client = Client(terse, agent=agent)
    told: list[TurnDone] = []

    async def scene(house: Playhouse) -> None:
        for number, question in enumerate(("What is red?", "And blue?", "And green?")):
            nonce = NONCE.format(7919 * number)
            client.history[0] = ChatMessage("system", nonce + SYSTEM)
            told.append(await client.ask(house, question))
        plain = Client(terse, agent="carol")
        told.append(await plain.ask(house, "What is red?"))

    play(tmp_path, model, scene)
    *first, plain = told
    assert [cached(done) for done in first] == [0, *map(known, first[:-1])]
    assert plain.usage.prompt_tokens == first[0].usage.prompt_tokens, "the model does not see it"


def test_without_the_rule_a_nonce_costs_everything(
    model: Path, tmp_path: Path, terse: Sampling
) -> None:
    client = Client(terse, agent="bob")

    async def scene(house: Playhouse) -> None:
        for number, question in enumerate(("What is red?", "And blue?")):
            client.history[0] = ChatMessage("system", NONCE.format(7919 * number) + SYSTEM)
            assert cached(await client.ask(house, question)) <= 32

    play(tmp_path, model, scene, template__volatile="")


@pytest.mark.parametrize("agent", ["bob", None])
def test_an_edited_history_is_a_branch_and_both_are_kept(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None
) -> None:
    client = Client(terse, agent=agent)

    async def scene(house: Playhouse) -> None:
        first = await client.ask(house, "What is red?")
        second = await client.ask(house, "And blue, what is that?")
        old = list(client.history)
        client.history[-2:] = []  # the second question is asked in other words
        edited = await client.ask(house, "Then what might blue be?")
        assert cached(edited) >= known(first)
        further = await client.ask(house, "Really?")
        assert cached(further) == known(edited)
        new, client.history = client.history, old
        back = await client.ask(house, "And green?")
        assert cached(back) == known(second), "the old branch, in the tokens that were sampled"
        client.history = new
        again = await client.ask(house, "Sure?")
        assert cached(again) == known(further), "and the new one"

    play(tmp_path, model, scene)


@pytest.mark.parametrize(
    ("agent", "family"), [(None, "smollm2"), ("bob", "qwen3"), ("bob", "llama31")]
)
def test_results_of_tools_cost_themselves(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None, family: str
) -> None:
    """A call is told anew as the template writes it; everything before it is cached."""
    thinking = {"enable_thinking": True}  # or Qwen3 ends its prompts with a thought, for once
    client = Client(terse, agent=agent, tools=(WEATHER,), template_kwargs=thinking)
    call = ToolCall("call_1", "weather", '{"at": "Oslo"}')

    async def scene(house: Playhouse) -> None:
        first = await client.ask(house, "Is it raining?")
        client.history[-1] = ChatMessage("assistant", "", tool_calls=(call,))
        client.history.append(ChatMessage("tool", "It is.", tool_call_id="call_1"))
        second = await client.send(house, client.history)
        assert cached(second) >= first.usage.prompt_tokens
        client.history.append(ChatMessage("assistant", second.text))
        third = await client.ask(house, "And tomorrow?")
        assert cached(third) == known(second)

    play(tmp_path / "home", mannered(model, tmp_path / "model", family), scene)


def test_two_clients_with_one_system_prompt_share_it(
    model: Path, tmp_path: Path, terse: Sampling
) -> None:
    async def scene(house: Playhouse) -> None:
        first = await Client(terse).ask(house, "What is red?")
        second = await Client(terse).ask(house, "Who are you, then?")
        assert first.agent != second.agent
        system = await house.log("", first.agent)
        assert cached(second) == system[0].end > 40

    play(tmp_path, model, scene)


def test_a_say_keeps_the_tools_that_were_told_before(
    model: Path, tmp_path: Path, terse: Sampling
) -> None:
    async def say(house: Playhouse, content: str, tools: tuple[Tool, ...] = ()) -> TurnDone:
        request = TurnRequest(
            messages=(ChatMessage("user", content),),
            mode="say",
            agent="bob",
            max_tokens=9,
            sampling=terse,
            tools=tools,
        )
        async with opened(house, request) as turn:
            return await turn.done()

    told: list[TurnDone] = []

    async def first(house: Playhouse) -> None:
        told.append(await say(house, "Is it raining?", (WEATHER,)))

    async def second(house: Playhouse) -> None:
        told.append(await say(house, "And tomorrow?"))

    play(tmp_path, model, first, second)
    assert cached(told[1]) == known(told[0])


@pytest.mark.parametrize("agent", ["bob", None])
def test_the_date_stays_that_of_the_agents_first_day(
    model: Path, tmp_path: Path, terse: Sampling, agent: str | None
) -> None:
    """Llama 3.1 prints the date in front of everything: an agent of July goes on in July."""
    client = Client(terse, agent=agent)
    told: list[TurnDone] = []
    july = Frame(date="2024-07-26T12:00:00+02:00")

    async def made_in_july(house: Playhouse) -> None:
        store: Any = house.system.get("store")
        await store.ask(Commit(AgentKey("", "bob"), (), None, july))
        told.append(await Client.ask(Client(terse, agent="bob"), house, "What is red?"))

    async def today(house: Playhouse) -> None:
        client.history.append(ChatMessage("user", "What is red?"))
        client.history.append(ChatMessage("assistant", told[0].text))
        told.append(await client.ask(house, "And blue?"))
        told.append(await Client(terse, agent="carol").ask(house, "What is red?"))

    play(tmp_path / "home", mannered(model, tmp_path / "m", "llama31"), made_in_july, today)
    assert told[1].agent == "bob"
    assert cached(told[1]) == known(told[0])
    assert cached(told[2]) < 40, "who is made today reads today's date"
