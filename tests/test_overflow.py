"""Histories that outgrow the context window: what is left out, and that it stays left out."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.actors.store_messages import Recall
from greenroom.actors.turn import past
from greenroom.runtime.agent_records import Overflow, Probe, SpawnRequest
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.overflow import cut, fullness, noted_before, resumed
from greenroom.runtime.records import ChatMessage, Role, Sampling, TurnDone, TurnRequest
from tests.front import Reply, fronted, said
from tests.menagerie import config_of
from tests.test_reuse import Client, cached, known, play
from tests.test_reuse import terse as terse
from tests.zoo import save_checkpoint

SYSTEM = ChatMessage("system", "S")
QUESTION = "Tell me about number {}, and do not be short about it, please."
WINDOW = 320


def talk(rounds: int, first: int = 0) -> list[ChatMessage]:
    roles: tuple[Role, ...] = ("user", "assistant")
    return [ChatMessage(r, f"{r} {n}") for n in range(first, first + rounds) for r in roles]


def test_the_oldest_rounds_go_and_a_note_stands_in_their_place() -> None:
    told = [SYSTEM, *talk(5), ChatMessage("user", "now")]
    shorter = cut(told, [10] * len(told), 65)
    assert shorter is not None
    system, note, *kept = shorter.joined()
    assert system == SYSTEM
    assert (note.role, note.heard, noted_before(note)) == ("user", True, 6)
    assert kept == [*talk(2, 3), told[-1]]
    assert "In short" in shorter.joined("In short")[1].content


def test_calls_stay_with_their_answers_and_pinned_rounds_stay() -> None:
    result = ChatMessage("tool", "5", tool_call_id="c")
    first = [*talk(1), result, ChatMessage("assistant", "It is 5.")]
    told = [SYSTEM, *first, *talk(3, 1), ChatMessage("user", "now")]
    shorter = cut(told, [10] * len(told), 110, pinned=[3])
    assert shorter is not None
    assert shorter.pinned == tuple(first)
    assert shorter.left_out == tuple(talk(1, 1))
    assert shorter.num_before == 6


def test_where_nothing_can_go_nothing_does() -> None:
    last = [SYSTEM, ChatMessage("user", "a long one")]
    assert cut(last, [5, 500], 100) is None
    assert cut([*last, *talk(1)], [5, 9, 9, 9], 100) is None


@given(st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(5, 200))
def test_a_clients_history_is_cut_where_it_was_before(
    rounds: int, more: int, system: bool, room: int
) -> None:
    """Clients send all of it, however often it has been cut."""
    client = [SYSTEM] * system + talk(rounds) + [ChatMessage("user", "now")]
    agent = client
    for turn in range(3):
        shorter = cut(agent, [10] * len(agent), room)
        if shorter is not None:
            kept = shorter.kept
            agent = shorter.joined()
            assert client[-len(kept) :] == list(kept)
            assert noted_before(agent[int(system)]) == len(client) - len(kept) - system
        new = [ChatMessage("assistant", "so"), *talk(more, 10 * turn), ChatMessage("user", "now")]
        client = [*client, *new]
        remembered = [*agent, new[0]]
        agent = resumed(client, remembered)
        assert agent == [*remembered, *new[1:]]
    other = [SYSTEM] * system + talk(9, 100)
    assert resumed(other, agent) == other


def test_from_four_fifths_on_it_is_told_how_full_the_window_is() -> None:
    assert fullness(79, 100) == ()
    assert fullness(80, 100) == ("context_nearly_full: 80 of 100 tokens are used (80 %)",)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    config = {
        **config_of("llama"),
        "model_type": "llama",
        "vocab_size": 49152,
        "max_position_embeddings": WINDOW,
    }
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    return save_checkpoint(folder, default_model_path, config)


def codes(done: TurnDone) -> list[str]:
    return [notice.partition(":")[0] for notice in done.notices]


@pytest.mark.parametrize("policy", ["drop_oldest", "summarize"])
def test_a_conversation_goes_on_past_the_window(
    narrow: Path, tmp_path: Path, terse: Sampling, policy: Overflow
) -> None:
    """What was left out once stays left out: the turns after it are cached like any others."""
    client = Client(terse, system="You keep rule 77.", agent="bob")
    told: list[TurnDone] = []

    async def scene(house: Playhouse) -> None:
        await house.spawn(SpawnRequest(name="bob", overflow="error"))
        await house.spawn(SpawnRequest(name="bob", overflow=policy))
        told.extend([await client.ask(house, QUESTION.format(n)) for n in range(10)])
        for entry in await house.log("", "bob"):
            assert entry.end <= WINDOW

    play(tmp_path, narrow, scene)
    done = {"drop_oldest": "context_dropped", "summarize": "context_summarized"}[policy]
    cuts = [n for n, each in enumerate(told) if done in codes(each)]
    assert 1 <= len(cuts) <= 4, "each makes room for several turns"
    for n, (before, after) in enumerate(itertools.pairwise(told), start=1):
        assert after.usage.prompt_tokens + after.usage.completion_tokens <= WINDOW
        if n not in cuts:
            assert cached(after) == known(before)
        else:
            assert after.usage.prompt_tokens < before.usage.prompt_tokens
    nearly = [n for n, each in enumerate(told) if "context_nearly_full" in codes(each)]
    for n, each in enumerate(told):
        assert (n in nearly) == (known(each) >= 0.8 * WINDOW)


def test_without_a_policy_it_is_refused_and_nothing_is_lost(
    narrow: Path, tmp_path: Path, terse: Sampling
) -> None:
    async def say(house: Playhouse, content: str) -> TurnDone:
        request = TurnRequest(
            messages=(ChatMessage("user", content),),
            mode="say",
            agent="bob",
            max_tokens=9,
            sampling=terse,
        )
        async with opened(house, request) as turn:
            return await turn.done()

    async def scene(house: Playhouse) -> None:
        last = await say(house, QUESTION.format(0))
        while last.usage.prompt_tokens + 40 < WINDOW:
            last = await say(house, QUESTION.format(1))
        with pytest.raises(InvalidRequest) as refused:
            await say(house, 2 * QUESTION)
        assert refused.value.code == "context_length_exceeded"
        assert "context_nearly_full" in codes(last)
        await house.spawn(SpawnRequest(name="bob", overflow="drop_oldest"))
        shorter = await say(house, "And now?")
        assert "context_dropped" in codes(shorter)

    play(tmp_path, narrow, scene)


@pytest.mark.parametrize("policy", ["drop_oldest", "summarize"])
def test_the_system_prompt_and_what_is_pinned_outlast_every_overflow(
    narrow: Path, tmp_path: Path, terse: Sampling, policy: Overflow
) -> None:
    """However often it is cut, by a client that sends everything and by one that says what is new;
    each answer tells what was done, and a probe has told what would be cached."""
    client = Client(terse, system="You keep rule 77.", agent="chatting")
    pinned = "The safe opens with seventeen-forty-two."

    async def say(house: Playhouse, content: str) -> TurnDone:
        request = TurnRequest(
            messages=(ChatMessage("user", content),),
            mode="say",
            agent="saying",
            max_tokens=9,
            sampling=terse,
        )
        probe = await house.probe(request)
        async with opened(house, request) as turn:
            done = await turn.done()
        foretold(probe, done, policy)
        return done

    async def remembered(house: Playhouse, name: str) -> list[ChatMessage]:
        info = await house.find("", name)
        store: Any = house.system.get("store")
        return past(await store.ask(Recall(info.head)), info.system)

    async def check(house: Playhouse, name: str, told: list[TurnDone]) -> None:
        done = {"drop_oldest": "context_dropped", "summarize": "context_summarized"}[policy]
        cuts = [n for n, each in enumerate(told) if done in codes(each)]
        assert len(cuts) >= 2, "once is not enough"
        for cut_at in cuts:
            words = next(n for n in told[cut_at].notices if n.startswith(done))
            assert re.search(r"the oldest \d+ messages", words)
        messages = await remembered(house, name)
        assert messages[0] == ChatMessage("system", "You keep rule 77.")
        assert [m.content for m in messages].count(pinned) == 1
        at = [m.content for m in messages].index(pinned)
        assert messages[at + 1].role == "assistant", "with its answer"
        assert sum(noted_before(m) is not None for m in messages) == 1
        prompts = [each.usage.prompt_tokens for each in told]
        assert all(p + 9 <= WINDOW for p in prompts)

    async def scene(house: Playhouse) -> None:
        for name in ("chatting", "saying"):
            await house.spawn(SpawnRequest(name=name, system="You keep rule 77.", overflow=policy))
        chatted, said = [await client.ask(house, "Hello!")], [await say(house, "Hello!")]
        chatted.append(await client.ask(house, pinned))
        said.append(await say(house, pinned))
        for name in ("chatting", "saying"):
            await house.pin("", name)
        for n in range(14):
            question = QUESTION.format(n)
            request = client.next(question)
            probe = await house.probe(request)
            chatted.append(await client.ask(house, question))
            foretold(probe, chatted[-1], policy)
            said.append(await say(house, question))
        await check(house, "chatting", chatted)
        await check(house, "saying", said)

    play(tmp_path, narrow, scene)


def foretold(probe: Probe, done: TurnDone, policy: Overflow) -> None:
    """A summary cannot be told in advance; all else can."""
    if "context_summarized" in codes(done):
        assert probe.cached_tokens <= done.usage.cached_tokens
        return
    assert (probe.agent, probe.prompt_tokens, probe.cached_tokens) == (
        done.agent,
        done.usage.prompt_tokens,
        done.usage.cached_tokens,
    )


def test_the_door_tells_how_full_it_is_and_what_was_done(narrow: Path, tmp_path: Path) -> None:
    async def scene() -> None:
        async with fronted(tmp_path, narrow, agents__overflow="drop_oldest") as front:
            history = [said("system", "You keep rule 77.")]
            told: list[Reply] = []
            for n in range(9):
                history.append(said("user", QUESTION.format(n)))
                told.append(await front.ask(history, agent="bob"))
                history.append(said("assistant", told[-1].content))
        notices = [" ".join(reply.body["greenroom"]["notices"]) for reply in told]
        assert any("context_dropped: the oldest" in each for each in notices)
        for reply, each in zip(told, notices, strict=True):
            assert ("context_nearly_full" in each) == (reply.known >= 0.8 * WINDOW)

    uvloop.run(scene())
