"""Nobody learns what another has cached: not from what is counted, not from the clock."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from greenroom.actors.ongoing import opened
from greenroom.actors.playhouse import Playhouse
from greenroom.runtime.index import Index
from greenroom.runtime.namespace import derive_namespace
from greenroom.runtime.records import ChatMessage, Sampling, TurnDone, TurnRequest
from tests.test_hearing import settings, within
from tests.test_verbs import checkpoint

MINE, THEIRS = derive_namespace("my key"), derive_namespace("their key")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    return checkpoint("llama", tmp_path_factory.mktemp("checkpoint"), default_model_path)


def system(salt: str) -> str:
    """A system prompt of a length that does not depend on what it says."""
    return " ".join(f"Rule {salt} {number % 7}: be kind." for number in range(40))


async def ask(house: Playhouse, namespace: str, salt: str, agent: str | None = None) -> TurnDone:
    request = TurnRequest(
        messages=(ChatMessage("system", system(salt)), ChatMessage("user", "Yes?")),
        namespace=namespace,
        agent=agent,
        max_tokens=2,
        sampling=Sampling(temperature=0),
    )
    async with opened(house, request) as turn:
        return await turn.done()


async def work(house: Playhouse, namespace: str, salt: str) -> tuple[int, ...]:
    """All that is counted of one turn: what was cached, computed, decoded, copied."""
    before = (await house.status()).stage
    done = await ask(house, namespace, salt)
    now = (await house.status()).stage
    return (
        done.usage.cached_tokens,
        now.prefill_tokens - before.prefill_tokens,
        now.prefill_chunks - before.prefill_chunks,
        now.restored_tokens - before.restored_tokens,
        now.resident_hits - before.resident_hits,
        now.shared_tokens - before.shared_tokens,
    )


def test_a_guess_costs_under_another_key_what_it_costs_anew(model: Path, tmp_path: Path) -> None:
    home = settings(tmp_path, model)

    async def scene(house: Playhouse) -> None:
        await ask(house, THEIRS, "a", "alice")
        guessed, random = await work(house, MINE, "a"), await work(house, MINE, "b")
        assert guessed == random
        assert guessed[0] == 0
        assert (await work(house, THEIRS, "a"))[0] > 300, "under their own key it is cached"
        assert [info.name for info in await house.agents(MINE)] != ["alice"]
        request = TurnRequest(
            messages=(ChatMessage("system", system("a")), ChatMessage("user", "Yes?")),
            namespace=derive_namespace("a third key"),
        )
        assert (await house.probe(request)).cached_tokens == 0

    within(home, scene)
    index = Index(home.store_path)
    segments = index.load_all().segments
    index.close()
    mine = {s.id for s in segments if s.namespace == MINE}
    theirs = {s.id for s in segments if s.namespace == THEIRS}
    same = {s.token_bytes for s in segments if s.namespace == MINE} & {
        s.token_bytes for s in segments if s.namespace == THEIRS
    }
    assert same, "equal words"
    assert not mine & theirs, "of other addresses"


def confidence(ones: Sequence[float], others: Sequence[float]) -> float:
    """How sure one may be that one of two kinds of times is smaller: Mann and Whitney's z."""
    wins = sum((a < b) + 0.5 * (a == b) for a in ones for b in others)
    n, m = len(ones), len(others)
    return (wins - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


@pytest.mark.slow
def test_the_clock_does_not_tell_a_guess_from_anything_else(model: Path, tmp_path: Path) -> None:
    """Sixty guesses of what is cached under another key, and sixty of what is not, in turns."""
    times: dict[str, list[float]] = {"guess": [], "random": [], "own": []}

    async def scene(house: Playhouse) -> None:
        for number in range(60):
            cached, fresh = f"c{number:03}", f"r{number:03}"
            await ask(house, THEIRS, cached)
            turns = [("guess", MINE, cached), ("random", MINE, fresh), ("own", THEIRS, cached)]
            for kind, namespace, salt in turns if number % 2 else (turns[1], turns[0], turns[2]):
                done = await ask(house, namespace, salt)
                times[kind].append(done.timings.ttft_ms)

    within(settings(tmp_path, model), scene)
    # 4.5: by chance once in a hundred thousand times. All sixty sooner than all sixty: 9.4.
    assert abs(confidence(times["guess"], times["random"])) < 4.5
    assert confidence(times["own"], times["random"]) > 5, "the clock would tell"
