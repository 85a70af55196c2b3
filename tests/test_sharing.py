"""Prompts that begin alike are computed once, also while the first of them is still on stage."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.job import JobStarted
from tests.menagerie import config_of
from tests.tiny import StageRig, alone, prompt
from tests.zoo import build

SYSTEM = 48
TRUNK = prompt(SYSTEM, 3)
# gear keeps full attention, a sliding window and a convolution's state in one model.
MODELS = ("llama", "gemma3_text", "deepseek_v2", "gpt_oss", "qwen3_next", "mamba2", "gear")


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param, config_of(request.param))


@pytest.fixture(scope="module")
def llama() -> Any:
    return build("llama", config_of("llama"))


def question(number: int, length: int = 9) -> tuple[int, ...]:
    return (*TRUNK, *prompt(length, 10 + number))


def started(rig: StageRig, uid: int) -> int:
    first = rig.events[uid][0]
    assert isinstance(first, JobStarted)
    return first.cached_tokens


def send(rig: StageRig, uid: int, tokens: tuple[int, ...], scope: str | None = "s") -> None:
    rig.submit(uid, tokens, 6, system_end=SYSTEM, scope=scope)


def test_two_at_once_compute_one_system_prompt_once(model: Any) -> None:
    rig = StageRig(model)
    for uid in (1, 2):
        send(rig, uid, question(uid))
    rig.run()
    assert started(rig, 1) == 0
    assert started(rig, 2) == SYSTEM
    assert rig.stage.counters.prefill_tokens == SYSTEM + 9 + 9
    for uid in (1, 2):
        assert rig.tokens(uid) == alone(model, question(uid), 6)


def test_what_is_remembered_is_what_it_would_be_alone(model: Any) -> None:
    """Bit for bit: the same chunks were computed, by whomever."""
    both, single = StageRig(model), StageRig(model)
    for uid in (1, 2):
        send(both, uid, question(uid))
    both.run()
    send(single, 2, question(2))
    single.run()
    ours, theirs = both.done(2).segments, single.done(2).segments
    assert [(e.start, e.stop) for e in ours] == [(e.start, e.stop) for e in theirs]
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        assert one.payload.arrays.keys() == two.payload.arrays.keys()
        for name, array in one.payload.arrays.items():
            assert array.tobytes() == two.payload.arrays[name].tobytes(), name


def test_one_that_decodes_already_gives_its_beginning(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, question(1), 30, system_end=SYSTEM, scope="s")
    while len(rig.tokens(1)) < 5:
        rig.stage.step()
    send(rig, 2, question(2))
    rig.run()
    assert started(rig, 2) == SYSTEM
    assert rig.tokens(2) == alone(model, question(2), 6)
    assert rig.tokens(1) == alone(model, question(1), 30)


def test_an_answer_that_nobody_has_fetched_yet_gives_its_beginning_too(model: Any) -> None:
    rig = StageRig(model)
    send(rig, 1, question(1))
    while not rig.stage.idle:
        rig.stage.step()
    send(rig, 2, question(2))
    rig.run()
    assert started(rig, 2) == SYSTEM
    assert rig.tokens(2) == alone(model, question(2), 6)


def test_the_same_question_four_times_is_computed_once(model: Any) -> None:
    """All but one token each, which the answer is sampled from."""
    rig = StageRig(model, chunk_tokens=len(question(1)) - 1)
    for uid in range(4):
        send(rig, uid, question(1))
    rig.run()
    assert [started(rig, uid) for uid in range(4)] == [0, *[len(question(1)) - 1] * 3]
    assert all(rig.tokens(uid) == alone(model, question(1), 6) for uid in range(4))


def test_nobody_shares_across_scopes_or_without_one(llama: Any) -> None:
    rig = StageRig(llama, max_batch_size=4)
    for uid, scope in enumerate(("a", "b", None, None)):
        send(rig, uid, question(1), scope)
    rig.run()
    assert [started(rig, uid) for uid in range(4)] == [0] * 4


def test_a_beginning_too_short_to_wait_for(llama: Any) -> None:
    rig = StageRig(llama, chunk_tokens=4)
    for uid in (1, 2):
        rig.submit(uid, (*TRUNK[:12], *prompt(30, uid)), 4, scope="s")
    rig.run()
    assert (started(rig, 1), started(rig, 2)) == (0, 0)


def test_who_waited_goes_on_alone_when_the_first_is_cancelled(model: Any) -> None:
    rig = StageRig(model)
    for uid in (1, 2, 3):
        send(rig, uid, question(uid))
    rig.stage.step()
    rig.stage.cancel(1)
    rig.run()
    assert (started(rig, 2), started(rig, 3)) == (0, SYSTEM)
    for uid in (2, 3):
        assert rig.tokens(uid) == alone(model, question(uid), 6)


def test_the_foreground_does_not_wait_for_what_is_only_heard(llama: Any) -> None:
    """It takes what there is of it."""
    rig = StageRig(llama, chunk_tokens=20)
    rig.submit(1, question(1), 0, system_end=SYSTEM, background=True, scope="s")
    rig.stage.step()
    send(rig, 2, question(2))
    rig.stage.step()
    assert started(rig, 2) == 20
    rig.run()
    assert rig.tokens(2) == alone(llama, question(2), 6)


def test_branches_of_one_trunk_have_one_decoded_copy_of_it(llama: Any) -> None:
    """Whoever speaks next takes it; what it begins with is never decoded again."""
    rig = StageRig(llama, codec="k5cv5", resident_bytes=1 << 30)
    rig.submit(1, prompt(80), 6)
    rig.run()
    rig.stage.name(1, ["p", "g"])
    trunk = rig.done(1).segments
    told = (*prompt(80), *rig.tokens(1))
    sizes = []
    for round_ in range(2):
        for branch in range(4):
            uid = 10 * (round_ + 1) + branch
            question = (*told, *prompt(7, branch))
            rig.submit(uid, question, 5, pieces=trunk, keys=["p", "g"])
            rig.run()
            rig.stage.name(uid, [f"q{branch}", f"a{branch}"])
            plain = StageRig(llama, codec="k5cv5")
            plain.submit(1, question, 5, pieces=trunk)
            plain.run()
            assert rig.tokens(uid) == plain.tokens(1)
            sizes.append(rig.stage.count().memory.resident)
    assert rig.stage.counters.resident_hits == 8
    assert len(set(sizes)) == 1, "one copy, of one length"


def test_a_copy_is_not_taken_from_somebody_for_a_short_beginning(llama: Any) -> None:
    rig = StageRig(llama, resident_bytes=1 << 30)
    rig.submit(1, prompt(80), 6, system_end=20)
    rig.run()
    rig.stage.name(1, ["s", "p", "g"])
    system = rig.done(1).segments[:1]
    rig.submit(2, (*prompt(80)[:20], *prompt(9, 2)), 5, pieces=system, keys=["s"])
    rig.run()
    assert rig.stage.counters.resident_hits == 0
    rig.submit(3, (*prompt(80), *rig.tokens(1), 5), 5, pieces=rig.done(1).segments, handle=1)
    rig.run()
    assert rig.stage.counters.resident_hits == 1, "it is still there for whose it is"


def test_what_is_forgotten_is_in_no_copy(llama: Any) -> None:
    rig = StageRig(llama, resident_bytes=1 << 30)
    for uid in (1, 2):
        rig.submit(uid, prompt(40, uid), 6)
    rig.run()
    rig.stage.name(1, ["p1", "g1"])
    rig.stage.name(2, ["p2", "g2"])
    both = rig.stage.count().memory.resident
    rig.stage.discard({"g1"})
    assert 0 < rig.stage.count().memory.resident < both
    rig.stage.discard({"p2"})
    assert rig.stage.count().memory.resident == 0


def test_what_is_gone_while_a_turn_goes_on_from_it_is_in_no_copy_either(llama: Any) -> None:
    """Computed anew it may be other bytes: a copy of the old ones would pass for them."""
    rig = StageRig(llama, resident_bytes=1 << 30)
    rig.submit(1, prompt(40), 6)
    rig.run()
    rig.stage.name(1, ["p", "g"])
    said = (*prompt(40), *rig.tokens(1), *prompt(9, 2))
    for uid, gone in ((2, "g"), (3, "another")):
        rig.submit(uid, said, 6, pieces=rig.done(1).segments, keys=["p", "g"], handle=1)
        rig.stage.step()
        rig.stage.discard({gone})
        rig.run()
        assert (rig.stage.count().memory.resident > 0) == (gone == "another")


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.integers(1, 20), st.booleans()),
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("promote"), st.integers(0, 9)),
        st.tuples(st.just("finish"), st.integers(0, 9), st.integers(0, 4)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(steps, st.sampled_from([1, 2, 3]))
def test_whatever_comes_and_goes_everybody_gets_the_answer_of_one_alone(
    llama: Any, todo: list[tuple[Any, ...]], max_batch_size: int
) -> None:
    disorder(llama, todo, max_batch_size)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([1, 2, 3]))
def test_the_same_with_layers_that_forget(
    model: Any, todo: list[tuple[Any, ...]], max_batch_size: int
) -> None:
    disorder(model, todo, max_batch_size)


def disorder(model: Any, todo: list[tuple[Any, ...]], max_batch_size: int) -> None:
    rig = StageRig(model, max_batch_size=max_batch_size, chunk_tokens=8)
    told: dict[int, tuple[int, ...]] = {}
    for what, *args in todo:
        match what:
            case "send":
                number, length, background = args
                uid = len(told)
                told[uid] = question(number, length)
                num_tokens = 0 if background else 6
                rig.submit(
                    uid,
                    told[uid],
                    num_tokens,
                    system_end=SYSTEM,
                    background=background,
                    scope="s",
                )
            case "step":
                for _ in range(args[0]):
                    rig.stage.step()
            case "cancel":
                rig.stage.cancel(args[0])
            case "promote":
                rig.stage.promote(args[0])
            case _:
                rig.stage.finish(args[0], args[1])
    for _ in range(2000):
        if rig.stage.idle:
            break
        rig.stage.step()
    assert rig.stage.idle, "somebody waits for ever"
    for uid, tokens in told.items():
        if answer := rig.tokens(uid):
            assert answer == alone(model, tokens, len(answer))


def test_a_second_answer_to_a_prompt_needs_one_token_more(llama: Any) -> None:
    rig = StageRig(llama, chunk_tokens=64, schedule="adaptive", max_batch_size=4)
    for uid in range(4):
        rig.submit(uid, question(1), 6, scope="s", encodes=not uid)
    while not rig.stage.idle:
        rig.stage.step()
    for uid in range(4):
        rig.stage.finish(uid, 0 if uid else 6)
    assert rig.stage.counters.prefill_tokens == len(question(1)) + 3
    assert [rig.tokens(uid) for uid in range(4)] == [alone(llama, question(1), 6)] * 4
    assert rig.done(0).segments
    assert not any(rig.done(uid).segments for uid in (1, 2, 3))


def test_a_second_answer_gives_the_prompt_to_the_third_once_the_first_is_gone(model: Any) -> None:
    rig = StageRig(model, chunk_tokens=64, schedule="adaptive")
    for uid in range(4):
        rig.submit(uid, question(1), 6, system_end=SYSTEM, scope="s", encodes=not uid)
    gone: set[int] = set()
    while len(gone) < 4:
        rig.stage.step()
        for uid in range(4):
            if uid not in gone and rig.reason(uid) is not None:
                rig.stage.finish(uid, 0 if uid else 6)
                gone.add(uid)
    assert [started(rig, uid) for uid in range(4)] == [0, *[len(question(1)) - 1] * 3]
    assert rig.stage.counters.prefill_tokens == len(question(1)) + 3
    assert [rig.tokens(uid) for uid in range(4)] == [alone(model, question(1), 6)] * 4
