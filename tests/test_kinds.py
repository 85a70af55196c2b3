"""Every kind of cache: hot = restarted = full prefill, token by token, alone and in company."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from greenroom.runtime.cache import restore
from greenroom.runtime.codec import DEFAULT_CODEC
from greenroom.runtime.job import Encoded, JobStarted
from greenroom.runtime.segments import make_segment
from greenroom.runtime.spec import CacheSpec, extract_spec
from greenroom.runtime.vault import Vault
from tests.tiny import StageRig, alone, prompt
from tests.zoo import CONFIGS, build

SYSTEM, FIRST, ANSWER = 13, 30, 12


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


def play(
    model: Any,
    codec: str,
    tokens: Sequence[int],
    pieces: Sequence[Encoded] = (),
    *,
    company: bool = False,
    num_tokens: int = ANSWER,
    **more: Any,
) -> tuple[StageRig, list[int], list[Encoded]]:
    """One turn on a stage of its own; ``company`` decodes already when it comes.

    Returns the stage, the answer and the whole chain.
    """
    rig = StageRig(model, codec=codec, chunk_tokens=8)
    if company:
        rig.submit(0, prompt(21, 5), 45)
        while len(rig.tokens(0)) < 5:
            rig.stage.step()
    rig.submit(1, tokens, num_tokens, pieces=pieces, **more)
    rig.run()
    new = rig.done(1).segments
    old = [p for p in pieces if p.stop <= new[0].start]
    if old and old[-1].stop < new[0].start:
        raise AssertionError("the new segments do not follow the old ones")
    return rig, rig.tokens(1), [*old, *new]


def reread(root: Path, codec: str, chain: Sequence[Encoded]) -> list[Encoded]:
    """The same chain as it comes back from disk."""
    vault = Vault(root)
    found: list[Encoded] = []
    for each in chain:
        segment = make_segment(
            parent="00" * 20 if each.start else None,
            start=each.start,
            tokens=range(each.payload.num_tokens),
            kind="prompt",
            namespace="",
            fingerprint=f"{len(found)}",
            codec=each.payload.codec,
        )
        assert vault.write(segment, each.payload)
        found.append(Encoded(each.start, each.stop, vault.read(segment.id)[1]))
    return found


def cached(rig: StageRig) -> int:
    started = rig.events[1][0]
    assert isinstance(started, JobStarted)
    return started.cached_tokens


@pytest.mark.parametrize("company", [False, True], ids=["alone", "joining"])
@pytest.mark.parametrize("codec", ["float", DEFAULT_CODEC])
def test_hot_restarted_and_recomputed_say_the_same(
    model: Any, codec: str, company: bool, tmp_path: Path
) -> None:
    opening = prompt(FIRST)
    _, answer, chain = play(model, codec, opening, system_end=SYSTEM, company=company)
    assert answer == alone(model, opening, ANSWER)
    assert [s.stop for s in chain] == [SYSTEM, FIRST, FIRST + ANSWER]
    for turn in range(2):
        told = opening + tuple(answer) + prompt(9, turn)
        again = reread(tmp_path / str(turn), codec, chain)
        hot, answer, chain = play(model, codec, told, chain, company=company)
        cold, cold_answer, _ = play(model, codec, told, again, company=company)
        assert cold_answer == answer
        assert cached(hot) == cached(cold) == len(told) - 9
        if codec == "float":
            assert answer == alone(model, told, ANSWER)
        opening = told


def test_restored_logits_are_those_of_a_full_prefill(model: Any) -> None:
    tokens = prompt(FIRST)
    _, answer, chain = play(model, "float", tokens, system_end=SYSTEM)
    told = [*tokens, *answer, *prompt(5, 3)]
    spec = extract_spec(model, {"max_position_embeddings": 2048})
    caches = restore(spec, [(s.payload, s.stop - s.start) for s in chain])
    restored = model(mx.array([told[FIRST + ANSWER :]]), cache=caches)[0, -1]
    whole = model(mx.array([told]), cache=make_prompt_cache(model))[0, -1]
    assert mx.all(mx.abs(restored - whole) <= 1e-4).item()


def test_a_prompt_that_is_sent_again_computes_one_token(model: Any) -> None:
    tokens = prompt(FIRST)
    _, answer, chain = play(model, "float", tokens, system_end=SYSTEM)
    rig, again, _ = play(model, "float", tokens, chain[:2])
    assert again == answer
    assert rig.stage.counters.prefill_tokens == 1


def test_another_question_after_the_same_system_prompt(model: Any) -> None:
    _, _, chain = play(model, "float", prompt(FIRST), system_end=SYSTEM)
    told = prompt(SYSTEM) + prompt(11, 8)
    rig, answer, _ = play(model, "float", told, chain[:1])
    assert answer == alone(model, told, ANSWER)
    assert cached(rig) == SYSTEM


@pytest.mark.parametrize("cut", [3, 20, 29])
def test_an_edited_history_goes_on_from_where_it_can(model: Any, cut: int, tmp_path: Path) -> None:
    _, _, chain = play(model, "float", prompt(FIRST), system_end=SYSTEM)
    told = prompt(cut) + prompt(10, 4)
    edited = [Encoded(s.start, min(s.stop, cut), s.payload) for s in chain if s.start < cut]
    rig, answer, chain = play(model, "float", told, edited)
    assert answer == alone(model, told, ANSWER)
    assert cached(rig) <= cut
    spec = rig.spec
    if not spec.forgetful:
        assert cached(rig) == cut
    if cut > SYSTEM:
        assert cached(rig) >= SYSTEM
    # What the branch has kept is enough to go on from.
    longer = told + tuple(answer) + prompt(4, 6)
    rig, answer, _ = play(model, "float", longer, reread(tmp_path, "float", chain))
    assert answer == alone(model, longer, ANSWER)
    assert cached(rig) == len(longer) - 4


def test_an_answer_cut_short_is_still_remembered_rightly(model: Any) -> None:
    tokens = prompt(FIRST)
    rig = StageRig(model, chunk_tokens=8)
    rig.submit(1, tokens, 1000, system_end=SYSTEM)
    while len(rig.tokens(1)) < 25:
        rig.stage.step()
    kept = rig.tokens(1)[:18]
    rig.stage.finish(1, 18)
    chain = list(rig.done(1).segments)
    assert chain[-1].stop == FIRST + 18
    told = (*tokens, *kept, *prompt(7, 2))
    second, answer, chain = play(model, "float", told, chain)
    assert answer == alone(model, told, ANSWER)
    assert cached(second) >= FIRST - 1
    longer = told + tuple(answer) + prompt(4, 6)
    third, answer, _ = play(model, "float", longer, chain)
    assert answer == alone(model, longer, ANSWER)
    assert cached(third) == len(longer) - 4


def test_full_attention_pays_nothing_for_the_others() -> None:
    rig = StageRig(build("llama"), chunk_tokens=64)
    rig.submit(1, prompt(60), 2, system_end=20)
    rig.run()
    assert rig.stage.counters.prefill_chunks == 1
    assert isinstance(rig.spec, CacheSpec)
    assert not rig.spec.forgetful
