"""Every kind of cache: hot = restarted = full prefill, token by token, alone and in company."""

from pathlib import Path
from typing import Any

import pytest

from greenroom.runtime.codec import DEFAULT_CODEC
from greenroom.runtime.job import Encoded
from greenroom.runtime.spec import CacheSpec
from tests.exact import ANSWER, FIRST, SYSTEM, cached, compare_logits, converse, play, reread
from tests.tiny import StageRig, alone, prompt
from tests.zoo import CONFIGS, build

# One of each kind, and a mixture.
few = pytest.mark.parametrize(
    "model", ["llama", "gemma3_text", "mamba2", "qwen3_next"], indirect=True
)


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.mark.parametrize(
    ("codec", "company"),
    [("float", False), ("float", True), (DEFAULT_CODEC, True)],
    ids=["alone", "joining", "encoded"],
)
def test_hot_restarted_and_recomputed_say_the_same(
    model: Any, codec: str, company: bool, tmp_path: Path
) -> None:
    converse(model, codec, tmp_path, company=company)


def test_restored_logits_are_those_of_a_full_prefill(model: Any) -> None:
    compare_logits(model)


@few
def test_a_prompt_that_is_sent_again_computes_one_token_at_most(model: Any) -> None:
    tokens = prompt(FIRST)
    _, answer, chain = play(model, "float", tokens, system_end=SYSTEM)
    rig, again, _ = play(model, "float", tokens, chain[:2])
    assert again == answer
    assert rig.stage.counters.prefill_tokens == int(rig.spec.stateful)


@few
def test_another_question_after_the_same_system_prompt(model: Any) -> None:
    _, _, chain = play(model, "float", prompt(FIRST), system_end=SYSTEM)
    told = prompt(SYSTEM) + prompt(11, 8)
    rig, answer, _ = play(model, "float", told, chain[:1])
    assert answer == alone(model, told, ANSWER)
    assert cached(rig) == SYSTEM


@few
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


@few
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
