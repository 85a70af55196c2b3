"""Agents that get ready for what is still being said: it saves time, and changes nothing else."""

from pathlib import Path
from typing import Any

import pytest
import uvloop

import greenroom
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.agent_records import HearRequest
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.segments import transcript
from greenroom.runtime.transcript import Line
from tests.menagerie import config_of
from tests.server import make_home
from tests.test_hearing import STORY, SYSTEM, remembered, say, settings, within
from tests.zoo import save_checkpoint

WORDS = (STORY * 8).split()


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "qwen3_next"])
def model(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    default_model_path: Path,
) -> Path:
    config = {**config_of(request.param), "model_type": request.param, "vocab_size": 49152}
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


async def overhear(house: Playhouse, num_words: int) -> None:
    so_far = ChatMessage("user", " ".join(WORDS[:num_words]), "Alice", heard=True)
    await house.overhear("", "bob", so_far)


async def hear(house: Playhouse, content: str) -> None:
    await house.hear(HearRequest(agent="bob", content=content, name="Alice"))


async def conversation(house: Playhouse, *, follows: bool) -> Any:
    """Bob says something, is told a line, follows another while it is said, and is asked; or has
    all of it in the question."""
    await house.enrol("bob", SYSTEM)
    first, _ = await say(house, "Who are you?")
    question = f"Alice: {' '.join(WORDS)}\n\nWhat now?"
    if follows:
        before = (await house.counters()).prefill_tokens
        await overhear(house, 3)
        await hear(house, "It rains.")
        for num_words in range(5, len(WORDS), 9):
            await overhear(house, num_words)
        while (await house.counters()).prefill_tokens < before + 64:  # a chunk of what was said
            pass
    else:
        question = f"Alice: It rains.\n\n{question}"
    second, done = await say(house, question)
    third, _ = await say(house, "Are you sure?")
    return (first, second, third), done.usage


def test_whoever_follows_answers_as_if_it_were_told_at_once(model: Path, tmp_path: Path) -> None:
    """With fixed chunks: the same floats, encoded to the same bits, and the same answers."""
    with_it, without = (
        settings(tmp_path / name, model, "k5cv5") for name in ("follows", "does not")
    )
    ((follows, used),) = within(with_it, lambda house: conversation(house, follows=True))
    ((plain, all_),) = within(without, lambda house: conversation(house, follows=False))
    assert follows == plain
    assert used.prompt_tokens == all_.prompt_tokens
    assert used.cached_tokens >= all_.cached_tokens + 64
    tokens = [[p.segment.tokens.tolist() for p in remembered(each)] for each in (with_it, without)]
    assert tokens[0] == tokens[1]


def test_what_was_only_overheard_leaves_no_trace(model: Path, tmp_path: Path) -> None:
    """Nor does it keep what was told for good from being heard."""
    home = settings(tmp_path, model)

    async def scene(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        await hear(house, "It rains.")
        await overhear(house, 20)
        await hear(house, "It pours.")
        assert (await house.heard("", "bob", settled=False)).num_pending == 2
        await house.overhear("", "bob", None)
        heard = await house.heard("", "bob")
        await overhear(house, 30)
        assert (await house.heard("", "bob")).num_pending == 0
        return heard.num_pending

    assert within(home, scene) == [0]
    assert [m["content"] for m in transcript(remembered(home))][1:] == ["It rains.", "It pours."]


def test_whoever_waits_for_what_was_told_has_it_although_more_is_being_said(
    model: Path, tmp_path: Path
) -> None:
    home = settings(tmp_path, model)

    async def scene(house: Playhouse) -> Any:
        await house.enrol("bob", SYSTEM)
        await overhear(house, 20)
        await hear(house, " ".join(WORDS))
        return (await house.heard("", "bob")).num_pending

    assert within(home, scene) == [0]
    assert [m["content"] for m in transcript(remembered(home))][1:] == [" ".join(WORDS)]


async def three(home: Path) -> tuple[list[Line], int]:
    """A round robin of the default model: its lines, and how many tokens were read beside them."""
    async with greenroom.open(home=home, log__level="error") as room:
        members = [
            await room.spawn(name, system=f"You are {name}. Be brief.")
            for name in ("Ann", "Bob", "Cid")
        ]
        scene = await room.scene("tea", members, max_tokens=32, temperature=0.0)
        await scene.say("Talk about the weather.")
        lines = await scene.run(6)
        return lines, (await room.inspect()).house.stage.read_tokens


@pytest.mark.slow
def test_the_next_speaker_of_a_scene_has_heard_the_line_when_its_turn_begins(
    default_model_path: Path, tmp_path: Path
) -> None:
    """By count: its own turn reads less than what has been said since it spoke, although that comes
    with a template and a cue."""
    assert default_model_path.exists()
    lines, num_read = uvloop.run(three(make_home(tmp_path)))
    said = [line.usage.completion_tokens for line in lines if line.usage]
    new = [line.usage.prompt_tokens - line.usage.cached_tokens for line in lines if line.usage]
    since = [said[n - 1] + said[n - 2] for n in range(3, 6)]
    assert num_read > sum(said) / 3
    assert sum(new[3:]) < 0.7 * sum(since)
