"""The GPU actor with the real model: when it crashes, and when memory is short."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.problems import problem
from greenroom.runtime.agent_records import SpawnRequest
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.errors import NoMemory, StageFailed, TooLargeForMemory
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest
from greenroom.runtime.system import System
from tests.server import make_home
from tests.test_hearing import hear
from tests.test_hearing import settings as tiny_settings
from tests.test_verbs import checkpoint

QUESTIONS = ("What is the capital of France?", "And of Italy?", "Name an animal that flies.")
LONG = "Clocks are wound on Mondays, and the keys are kept by the porter. " * 40
Moment = Callable[[StageCounters, StageCounters], bool]


async def ask(
    house: Playhouse, name: str, content: str, max_tokens: int = 12, namespace: str = ""
) -> TurnDone:
    request = TurnRequest(
        messages=(ChatMessage("user", content),),
        mode="say",
        agent=name,
        namespace=namespace,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
    )
    async with opened(house, request) as turn:
        return await turn.done()


async def crash(house: Playhouse, system: System, moment: Moment) -> float:
    """Crash the GPU actor at the ``moment``, once two turns are on stage; returns when."""
    before = now = await house.counters()
    while now.waiting + now.running < 2 or not moment(before, now):
        now = await house.counters()
    gpu = system.get("gpu")
    assert gpu is not None
    gpu.cell.fail(RuntimeError("crashed on purpose"))
    return time.monotonic()


def mid_decode(before: StageCounters, now: StageCounters) -> bool:
    return now.decode_steps >= before.decode_steps + 5


def mid_prefill(before: StageCounters, now: StageCounters) -> bool:
    return now.prefill_chunks > before.prefill_chunks


async def crashed_turn(house: Playhouse, name: str, content: str) -> float:
    """A turn that the stage fails; returns when it was told, on the monotonic clock."""
    with pytest.raises(StageFailed):
        await ask(house, name, content, 500)
    return time.monotonic()


@pytest.mark.slow
def test_a_crash_ends_running_turns_at_once_and_nothing_that_was_said_is_lost(
    tmp_path: Path,
) -> None:
    overrides = {"home": str(make_home(tmp_path / "home")), "stage.schedule": "fixed"}
    settings = load_settings(overrides=overrides).settings

    async def scenario() -> None:
        async with open_house(settings) as house:
            system = house.system
            undisturbed = [await ask(house, "carol", q, namespace="apart") for q in QUESTIONS]
            first = await ask(house, "alice", QUESTIONS[0])
            assert "Paris" in first.text
            answers = [first]
            for moment, content in ((mid_decode, "Tell me a story."), (mid_prefill, LONG)):
                turns = [
                    asyncio.ensure_future(crashed_turn(house, name, content))
                    for name in ("alice", "bob")
                ]
                began = await crash(house, system, moment)
                # Some milliseconds on a machine of one's own; a busy one may take its time.
                assert max(await asyncio.gather(*turns)) - began < 10.0
                usage = answers[-1].usage
                answers.append(await ask(house, "alice", QUESTIONS[len(answers)]))
                known = usage.prompt_tokens + usage.completion_tokens
                assert answers[-1].usage.cached_tokens >= 0.95 * known
            assert [a.text for a in answers] == [u.text for u in undisturbed]
            assert system.inspect().actors[0].restarts == 2

    uvloop.run(scenario())


@pytest.mark.slow
def test_a_tiny_memory_refuses_with_numbers_and_forgets_nothing(tmp_path: Path) -> None:
    overrides = {
        "home": str(make_home(tmp_path / "home")),
        "stage.memory_budget_mb": "16",  # room for 256 tokens and little else
        "stage.memory_wait_s": "0.2",
    }
    settings = load_settings(overrides=overrides).settings

    async def scenario() -> None:
        async with open_house(settings) as house:
            assert "Paris" in (await ask(house, "bob", QUESTIONS[0])).text
            with pytest.raises(TooLargeForMemory) as never:
                await ask(house, "carol", LONG)
            assert never.value.needed > never.value.limit == 16 << 20
            long_turn = asyncio.ensure_future(ask(house, "alice", "Tell me a story.", 180))
            before = await house.counters()
            while not mid_decode(before, await house.counters()):
                pass
            with pytest.raises(NoMemory) as later:
                await ask(house, "bob", QUESTIONS[1])
            refused = problem(later.value, "an id")
            assert (refused.status, refused.error.code) == (503, "insufficient_memory")
            assert refused.retry_after_s == 1
            told = await long_turn
            assert told.timings.max_gap_ms > 0
            assert told.timings.prefill_ms > 0
            answer = await ask(house, "bob", QUESTIONS[1])
            assert answer.usage.cached_tokens > 0, "a refusal costs no memory of what was said"
            counters = await house.counters()
            assert (counters.refused, counters.waiting, counters.running) == (2, 0, 0)
            assert counters.short_of_memory == 1
            assert counters.memory.free >= 0

    uvloop.run(scenario())


@pytest.mark.slow  # for the ten seconds in which a house tries to close gracefully
def test_a_house_that_closes_amid_much_work_leaves_no_thread_behind(
    tmp_path: Path, default_model_path: Path
) -> None:
    settings = tiny_settings(tmp_path / "home", checkpoint("llama", tmp_path, default_model_path))

    async def scenario() -> None:
        async with open_house(settings) as house:
            for number in range(400):
                await house.spawn(SpawnRequest(name=f"agent-{number}"))
                await hear(house, "Clocks. " * 500, agent=f"agent-{number}")
        assert "greenroom-mlx" not in {each.name for each in threading.enumerate()}

    uvloop.run(scenario())
