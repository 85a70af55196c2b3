"""Agents that hear: whole agents of tiny models, with a stage, a store and a disk of their own."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from greenroom.actors.app import open_house
from greenroom.actors.hearing import JOB_TOKENS
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.agent_records import HearRequest
from greenroom.runtime.errors import InvalidRequest, NotFound
from greenroom.runtime.index import Index
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnDone, TurnRequest
from greenroom.runtime.segments import chain, chain_length, transcript
from tests.menagerie import config_of
from tests.zoo import save_checkpoint

SYSTEM = "You are Bob. " * 4
STORY = "The porter winds the clocks on Mondays, and keeps the keys behind the door. "


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "qwen3_next"])
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    default_model_path: Path,
) -> Path:
    config = {**config_of(request.param), "model_type": request.param, "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


@pytest.fixture
def home(model: Path, tmp_path: Path) -> Any:
    return settings(tmp_path, model)


def settings(folder: Path, model: Path, codec: str = "float") -> Any:
    overrides = {
        "home": str(folder),
        "model.name": str(model),
        "stage.schedule": "fixed",
        "stage.chunk_tokens": "64",
        "memory.codec": codec,
    }
    return load_settings(overrides=overrides).settings


async def hear(
    house: Playhouse,
    content: str,
    agent: str = "bob",
    name: str | None = None,
    key: str | None = None,
) -> None:
    await house.hear(HearRequest(agent=agent, content=content, name=name, key=key))


async def say(
    house: Playhouse,
    content: str,
    agent: str = "bob",
    max_tokens: int = 8,
    key: str | None = None,
) -> tuple[list[int], TurnDone]:
    """One greedy answer: its tokens, and how the turn ended."""
    request = TurnRequest(
        messages=(ChatMessage("user", content),),
        mode="say",
        agent=agent,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
        key=key,
    )
    tokens: list[int] = []
    async with opened(house, request) as turn:
        async for event in turn:
            match event:
                case TextDelta(_, new):
                    tokens += new
                case TurnDone():
                    return tokens, event
                case _:
                    pass
    raise AssertionError("no end")


def within(settings: Any, *scenes: Any) -> list[Any]:
    """Play each scene in a house of its own over one store; what they return."""

    async def play(scene: Any) -> Any:
        async with asyncio.timeout(60), open_house(settings) as house:
            return await scene(house)

    return [uvloop.run(play(scene)) for scene in scenes]


def remembered(settings: Any, name: str = "bob") -> tuple[Any, ...]:
    """The chain of an agent as it is on disk."""
    index = Index(settings.store_path)
    rows = {row.name: row for row in index.list_agents("")}
    segments = {s.id: s for s in index.load_all().segments}
    index.close()
    return chain(rows[name].head, segments)


async def told_first(house: Playhouse) -> Any:
    """Bob hears two things, then is asked."""
    await house.enrol("bob", SYSTEM)
    await hear(house, STORY * 3, name="Alice")
    await house.heard("", "bob")
    await hear(house, "It rains.")
    await house.heard("", "bob")
    return await say(house, "What now?")


async def told_at_once(house: Playhouse) -> Any:
    """The same, all in the question."""
    await house.enrol("bob", SYSTEM)
    return await say(house, f"Alice: {STORY * 3}\n\nIt rains.\n\nWhat now?")


def test_what_was_heard_is_known_when_the_question_comes(model: Path, tmp_path: Path) -> None:
    """The same answer as to the whole text; only its end is new."""
    ((heard, end),) = within(settings(tmp_path / "heard", model), told_first)
    ((asked, whole),) = within(settings(tmp_path / "asked", model), told_at_once)
    assert heard == asked
    assert end.usage.prompt_tokens == whole.usage.prompt_tokens
    assert whole.usage.cached_tokens == 0
    assert end.usage.prompt_tokens - end.usage.cached_tokens < 16
    chains = [remembered(settings(tmp_path / name, model)) for name in ("heard", "asked")]
    kinds = [[p.segment.kind for p in pieces] for pieces in chains]
    assert kinds == [
        ["system", "heard", "heard", "prompt", "generation"],
        ["system", "prompt", "generation"],
    ]
    assert [(m["role"], m["content"]) for m in transcript(chains[0])][1:4] == [
        ("user", STORY * 3),
        ("user", "It rains."),
        ("user", "What now?"),
    ]


def test_a_restart_between_hearing_and_answering_changes_nothing(
    model: Path, tmp_path: Path
) -> None:
    async def hears(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        await hear(house, STORY * 3, name="Alice")
        await hear(house, "It rains.")
        return await house.heard("", "bob")

    async def answers(house: Playhouse) -> Any:
        return await say(house, "What now?")

    async def both(house: Playhouse) -> Any:
        await hears(house)
        return await answers(house)

    codec = "k5cv5"
    heard, (restarted, end) = within(settings(tmp_path / "a", model, codec), hears, answers)
    ((hot, _),) = within(settings(tmp_path / "b", model, codec), both)
    assert restarted == hot
    assert heard.num_pending == 0
    assert heard.head is not None
    assert end.usage.prompt_tokens - end.usage.cached_tokens < 16


def test_what_waits_together_is_taken_in_together_and_a_turn_waits_for_none_of_it(
    home: Any,
) -> None:
    """A question that comes at once takes what is pending with it."""

    async def scene(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        for n in range(9):
            await hear(house, f"{n}. {STORY}")
        return await say(house, "What now?")

    ((answer, _),) = within(home, scene)
    pieces = remembered(home)
    assert len(answer) == 8
    assert sum(p.segment.kind == "heard" for p in pieces) <= 1, "one job, or none"
    contents = [m["content"] for m in transcript(pieces)]
    assert contents[1:11] == [*(f"{n}. {STORY}" for n in range(9)), "What now?"]


def test_a_turn_that_is_given_up_forgets_nothing_that_was_heard(home: Any) -> None:
    async def scene(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        await hear(house, STORY * 12)
        request = TurnRequest(
            messages=(ChatMessage("user", "Nobody waits for this."),),
            mode="say",
            agent="bob",
            max_tokens=500,
        )
        async with opened(house, request):
            pass
        await house.heard("", "bob")
        return await say(house, "What now?")

    ((_, end),) = within(home, scene)
    assert [m["content"] for m in transcript(remembered(home))][1:3] == [STORY * 12, "What now?"]
    assert end.usage.prompt_tokens - end.usage.cached_tokens < 16


def test_what_is_pending_when_the_house_closes_is_heard_to_the_end(home: Any) -> None:
    async def hears(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        await hear(house, STORY * 12)

    within(home, hears)
    pieces = remembered(home)
    assert [m["content"] for m in transcript(pieces)][1:] == [STORY * 12]
    assert chain_length(pieces) > 150


def test_a_long_story_is_taken_in_by_parts(home: Any) -> None:
    async def scene(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        await hear(house, STORY * 80)
        await house.heard("", "bob")
        return await say(house, "What now?", max_tokens=1)

    ((_, end),) = within(home, scene)
    heard = [p.segment for p in remembered(home) if p.segment.kind == "heard"]
    assert len(heard) == 3
    assert all(s.num_tokens <= JOB_TOKENS for s in heard)
    assert end.usage.prompt_tokens - end.usage.cached_tokens < 16


def test_what_somebody_has_heard_before_costs_nothing(home: Any) -> None:
    """The same words after the same system prompt: one memory, two heads."""

    async def scene(house: Playhouse) -> Any:
        for agent in ("bob", "carol"):
            await house.enrol(agent, SYSTEM)
            await hear(house, STORY * 6, agent)
            await house.heard("", agent)
        first = await house.counters()
        await house.enrol("dave", SYSTEM)
        await hear(house, STORY * 6, "dave", name=None)
        heard = await house.heard("", "dave")
        assert (await house.counters()).prefill_tokens == first.prefill_tokens
        return heard.head, (await house.heard("", "bob")).head

    ((first, second),) = within(home, scene)
    assert first == second
    assert len(remembered(home, "dave")) == len(remembered(home, "bob"))


def test_what_can_never_be_heard_is_told_and_left_out(home: Any) -> None:
    async def scene(house: Playhouse) -> Any:
        window = house.model.context_window
        await house.enrol("bob", SYSTEM)
        with pytest.raises(InvalidRequest, match="nothing to hear"):
            await hear(house, " \n")
        await hear(house, "a " * (window + 10))
        with pytest.raises(InvalidRequest, match="context window") as refused:
            await house.heard("", "bob")
        await hear(house, STORY)
        await house.heard("", "bob")
        return refused.value.code

    (code,) = within(home, scene)
    assert code == "context_length_exceeded"
    assert [m["content"] for m in transcript(remembered(home))][1:] == [STORY]


def test_what_has_a_key_is_heard_once_and_answered_once(home: Any) -> None:
    """Told and asked again, in the same house and after a restart: nothing is computed."""

    async def scene(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        for _ in range(2):
            await hear(house, STORY, key="line 1")
            await hear(house, "It rains.", key="line 2")
        _, first = await say(house, "What now?", key="turn 1")
        await hear(house, STORY, key="line 1")
        await house.heard("", "bob")
        before = await house.counters()
        _, again = await say(house, "What now?", key="turn 1")
        assert (await house.counters()).prefill_tokens == before.prefill_tokens
        assert again.usage.completion_tokens == 0
        nothing = TurnRequest(messages=(), mode="say", agent="bob", key="turn 2")
        with pytest.raises(NotFound, match="nothing was answered"):
            async with opened(house, nothing):
                pass
        assert (again.text, again.head) == (first.text, first.head)
        return first.text

    ((first), (again)) = within(home, scene, scene)
    assert first == again
    said = [(m["role"], m["content"]) for m in transcript(remembered(home))]
    assert said[1:] == [
        ("user", STORY),
        ("user", "It rains."),
        ("user", "What now?"),
        ("assistant", first),
    ]
