"""The main promise, on the real model and real processes: a restart changes nothing."""

import asyncio
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import mlx.core as mx
import openai
import pytest
import uvloop

from greenroom.actors.app import make_stage, open_house
from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.encoding import decode
from greenroom.runtime.index import Index
from greenroom.runtime.job import Job, JobEvent, Piece
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage, Sampling, TextDelta, TurnRequest
from greenroom.runtime.segments import chain, chain_length, chain_tokens
from greenroom.runtime.vault import Vault
from tests.server import make_home, running

SYSTEM = "You are Alice, a guide. You answer in one short sentence. " + topics["assert"][:1500]
QUESTIONS = (
    "What is the capital of France?",
    "Name an animal that can fly.",
    "Which city did I ask you about the country of?",
)
FIXED = ("--set", "stage.schedule=fixed")


def converse(url: str, history: list[Any], questions: tuple[str, ...]) -> list[tuple[int, int]]:
    """Ask one question after the other as alice; (prompt, cached) tokens of each turn."""
    counts = []
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for question in questions:
            history.append({"role": "user", "content": question})
            reply = client.chat.completions.create(
                model="default",
                messages=history,
                temperature=0,
                max_tokens=32,
                extra_headers={"X-Agent-Name": "alice"},
            )
            history.append({"role": "assistant", "content": reply.choices[0].message.content})
            assert reply.usage is not None
            assert reply.usage.prompt_tokens_details is not None
            cached = reply.usage.prompt_tokens_details.cached_tokens or 0
            counts.append((reply.usage.total_tokens, cached))
    return counts


def test_a_killed_server_goes_on_as_if_it_had_never_been_killed(tmp_path: Path) -> None:
    killed: list[Any] = [{"role": "system", "content": SYSTEM}]
    home = make_home(tmp_path / "killed")
    with running(home, *FIXED) as server:
        before = converse(server.url, killed, QUESTIONS[:2])
        server.kill()
    with running(home, *FIXED) as server:
        ((_, cached),) = converse(server.url, killed, QUESTIONS[2:])
        assert server.stop() == 0
    unharmed: list[Any] = [{"role": "system", "content": SYSTEM}]
    with running(make_home(tmp_path / "unharmed"), *FIXED) as server:
        converse(server.url, unharmed, QUESTIONS)
        assert server.stop() == 0
    assert killed == unharmed
    assert "Paris" in killed[2]["content"]
    assert cached >= 0.95 * before[-1][0]


async def take(
    house: Playhouse, name: str, content: str, max_tokens: int, namespace: str = ""
) -> list[int]:
    """The token ids of one greedy answer."""
    request = TurnRequest(
        messages=(ChatMessage("user", content),),
        mode="say",
        agent=name,
        namespace=namespace,
        max_tokens=max_tokens,
        sampling=Sampling(temperature=0),
    )
    tokens: list[int] = []
    async with opened(house, request) as turn:
        async for event in turn:
            if isinstance(event, TextDelta):
                tokens += event.tokens
    return tokens


def settings_for(home: Path) -> Any:
    overrides = {"home": str(home), "stage.schedule": "fixed"}
    return load_settings(overrides=overrides).settings


@pytest.mark.timeout(400)
@pytest.mark.parametrize("num_tokens", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_two_that_decode_together_each_say_what_they_say_alone(
    tmp_path: Path, num_tokens: int
) -> None:
    """The second joins when the first has said some ten tokens and has many more to say."""
    asked = ("Write a long story about a fox.", "Explain at length how bread is made.")
    lengths = (num_tokens + 48, num_tokens)
    settings = settings_for(make_home(tmp_path / "home"))

    async def scenario() -> None:
        async with open_house(settings) as house:
            # Namespaces share nothing: each of the four answers begins without memory.
            alone = [
                await take(house, "alice", question, length, f"alone{n}")
                for n, (question, length) in enumerate(zip(asked, lengths, strict=True))
            ]
            assert [len(a) for a in alone] == [*lengths], "the model has more to say"
            before = await house.counters()
            first = asyncio.ensure_future(take(house, "first", asked[0], lengths[0], "both"))
            while (await house.counters()).decode_steps - before.decode_steps < 10:
                pass
            second = await take(house, "second", asked[1], lengths[1], "both")
            assert [await first, second] == alone
            after = await house.counters()
            rows = after.decode_rows - before.decode_rows
            shared = rows - (after.decode_steps - before.decode_steps)
            assert shared >= 0.9 * num_tokens, "steps of two rows"

    uvloop.run(scenario())


def test_hot_and_restarted_turns_stand_on_the_same_bytes(
    tmp_path: Path, default_model_path: Path
) -> None:
    """The second turn's stage cache is decode(segments), bit for bit, hot and after a restart."""
    settings = settings_for(make_home(tmp_path / "home"))

    async def hot() -> list[int]:
        async with open_house(settings) as house:
            await take(house, "alice", SYSTEM, 12)
            await take(house, "hot", SYSTEM, 12)
            return await take(house, "hot", "Go on.", 12)

    async def restarted() -> list[int]:
        async with open_house(settings) as house:
            return await take(house, "alice", "Go on.", 12)

    assert uvloop.run(hot()) == uvloop.run(restarted())
    index = Index(settings.store_path)
    rows = {row.name: row for row in index.list_agents("")}
    segments = {s.id: s for s in index.load_all().segments}
    index.close()
    pieces = chain(rows["alice"].head, segments)[:-2]  # as they were before the second turn
    vault = Vault(settings.store_path)
    payloads = [vault.read(p.segment.id)[1] for p in pieces]
    events: list[tuple[int, JobEvent]] = []
    stage, facts = make_stage(
        settings,
        load_catalog().default("cpu"),
        default_model_path,
        None,
        lambda u, e: events.append((u, e)),
    )
    length = chain_length(pieces)
    job = Job(
        tokens=(*chain_tokens(pieces).tolist(), *facts.text.encode("And on and on. " * 200)),
        pieces=tuple(Piece(p, s.used) for p, s in zip(payloads, pieces, strict=True)),
        encode_from=length,
        boundaries=(),
        max_tokens=1,
        stop_tokens=(),
        sampling=Sampling(temperature=0),
    )
    stage.submit(1, job)
    stage.step()
    decoded = [decode(facts.spec, payload) for payload in payloads]
    for layer, live in enumerate(stage.caches(1)):
        for side, kept in enumerate((live.keys, live.values)):
            whole = mx.concatenate([d.rows(layer)[side] for d in decoded], axis=2)
            assert mx.array_equal(kept[..., :length, :], whole)
