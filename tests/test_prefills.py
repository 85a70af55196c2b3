"""How many tokens of a prompt are computed, by whom it is sent and how: stated, and counted."""

import asyncio
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.agent_records import SpawnRequest
from greenroom.runtime.records import (
    ChatMessage,
    Sampling,
    TextDelta,
    TokenLogprob,
    TurnDone,
    TurnRequest,
)
from tests.test_hearing import say, settings, within
from tests.test_verbs import MODELS, again, checkpoint

SYSTEM = ChatMessage("system", "You are a guide in a museum of clocks. " * 12)
QUESTION = (SYSTEM, ChatMessage("user", "Which clock is the oldest?"))


@pytest.fixture(scope="module", params=MODELS)
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    default_model_path: Path,
) -> Path:
    return checkpoint(request.param, tmp_path_factory.mktemp("checkpoint"), default_model_path)


async def ask(house: Playhouse, *told: ChatMessage, agent: str = "bob", **more: Any) -> TurnDone:
    request = TurnRequest(
        messages=told, agent=agent, max_tokens=6, sampling=Sampling(temperature=0), **more
    )
    async with opened(house, request) as turn:
        return await turn.done()


class Counted:
    """How many prompt tokens the stage computes meanwhile, and how many chunks are ``large``: of
    more than one token, as in a decode step."""

    def __init__(self, house: Playhouse) -> None:
        self.house = house

    async def __aenter__(self) -> Self:
        self.before = await self.house.counters()
        return self

    async def __aexit__(self, *_: object) -> None:
        now = await self.house.counters()
        self.tokens = now.prefill_tokens - self.before.prefill_tokens
        chunks = now.prefill_chunks - self.before.prefill_chunks
        self.large = chunks - (now.chunk_tokens.counts[0] - self.before.chunk_tokens.counts[0])


def test_what_is_sent_again_is_not_computed_again(model: Path, tmp_path: Path) -> None:
    """An exact re-send by the same agent, by another, a regenerated answer of a "say", and a fork
    that is asked the same, hot and after a restart."""
    none = (again(model), 0)

    async def scene(house: Playhouse) -> None:
        first = await ask(house, *QUESTION)
        assert first.usage.cached_tokens == 0
        for agent in ("bob", "carol"):
            async with Counted(house) as counted:
                repeated = await ask(house, *QUESTION, agent=agent)
            assert (counted.tokens, counted.large) == none
            assert repeated.usage.cached_tokens == repeated.usage.prompt_tokens - none[0]
        answered = (*QUESTION, ChatMessage("assistant", repeated.text))
        await house.fork("", "bob", "fork")
        _, told = await say(house, "And the newest?")
        async with Counted(house) as counted:
            await ask(house, *answered, ChatMessage("user", "And the newest?"))
        assert (counted.tokens, counted.large) == none, "regenerated"
        async with Counted(house) as counted:
            _, forked = await say(house, "And the newest?", "fork")
        assert (counted.tokens, counted.large) == none
        assert forked.usage.prompt_tokens == told.usage.prompt_tokens

    async def restarted(house: Playhouse) -> None:
        async with Counted(house) as counted:
            await ask(house, *QUESTION)
        assert (counted.tokens, counted.large) == none

    within(settings(tmp_path, model), scene, restarted)


def test_the_first_token_is_drawn_from_the_same_numbers(model: Path, tmp_path: Path) -> None:
    """Its log-probability, and that of all others, to the bit: hot, decoded and restarted."""
    sampling = Sampling(temperature=0, top_logprobs=5)

    async def scene(house: Playhouse) -> tuple[TokenLogprob, ...]:
        request = TurnRequest(messages=QUESTION, agent="bob", max_tokens=2, sampling=sampling)
        told: list[TokenLogprob] = []
        for _ in range(2):
            async with opened(house, request) as turn:
                told += [lp async for e in turn if isinstance(e, TextDelta) for lp in e.logprobs][
                    :1
                ]
        return tuple(told)

    home = settings(tmp_path, model)
    bare = msgspec.structs.replace(
        home, memory=msgspec.structs.replace(home.memory, resident_budget_mb=0)
    )
    ((first, hot),) = within(home, scene)
    ((decoded, restarted),) = within(bare, scene)
    if not again(model):
        assert first == hot
    assert hot == decoded == restarted


def test_a_fork_that_speaks_computes_what_is_new(model: Path, tmp_path: Path) -> None:
    """All that the trunk holds is cached: the fork computes as much as the trunk itself would."""

    async def scene(house: Playhouse) -> None:
        await house.spawn(SpawnRequest(name="bob", system=SYSTEM.content))
        _, first = await say(house, "Which clock is the oldest?")
        length = (await house.find("", "bob")).num_tokens
        assert length == first.usage.prompt_tokens + first.usage.completion_tokens
        for number in range(4):
            await house.fork("", "bob", f"fork-{number}")
        async with Counted(house) as counted:
            turns = await asyncio.gather(
                *(say(house, f"What of hall {n}?", f"fork-{n}") for n in range(4))
            )
        used = [end.usage for _, end in turns]
        assert all(u.cached_tokens >= length for u in used)
        assert counted.tokens == sum(u.prompt_tokens - u.cached_tokens for u in used)
        assert counted.tokens <= 4 * 20

    within(settings(tmp_path, model), scene)


def test_four_answers_to_a_new_question_compute_it_once(model: Path, tmp_path: Path) -> None:
    """The other three take one token each, or none where the question is remembered."""
    home = settings(tmp_path, model)
    adaptive = msgspec.structs.replace(
        home, stage=msgspec.structs.replace(home.stage, schedule="adaptive")
    )

    async def scene(house: Playhouse) -> None:
        async with Counted(house) as counted:
            done = await ask(house, *QUESTION, n=4)
        assert len(done.others) == 3
        assert counted.tokens == done.usage.prompt_tokens + 3
        async with Counted(house) as counted:
            await ask(house, *QUESTION, n=4)
        assert (counted.tokens, counted.large) == (4 * again(model), 0)

    async def restarted(house: Playhouse) -> None:
        async with Counted(house) as counted:
            await ask(house, *QUESTION, agent="carol", n=4)
        assert (counted.tokens, counted.large) == (4 * again(model), 0)

    within(adaptive, scene, restarted)


def test_chunks_of_one_size_are_begun_anew_for_each_answer(model: Path, tmp_path: Path) -> None:
    """Bit for bit what one alone would compute: the price of the fixed schedule."""

    async def scene(house: Playhouse) -> None:
        async with Counted(house) as counted:
            done = await ask(house, *QUESTION, n=4)
        assert counted.tokens <= done.usage.prompt_tokens + 3 * 64

    within(settings(tmp_path, model), scene)


def test_two_at_once_compute_their_system_prompt_once(model: Path, tmp_path: Path) -> None:
    async def scene(house: Playhouse) -> None:
        questions = [(SYSTEM, ChatMessage("user", f"I am {n}. Well?")) for n in range(2)]
        async with Counted(house) as counted:
            turns = await asyncio.gather(
                *(ask(house, *q, agent=f"agent-{n}") for n, q in enumerate(questions))
            )
        cached = sorted(t.usage.cached_tokens for t in turns)
        assert cached[0] == 0
        assert cached[1] >= 64
        assert counted.tokens == sum(t.usage.prompt_tokens for t in turns) - cached[1]

    within(settings(tmp_path, model), scene)
