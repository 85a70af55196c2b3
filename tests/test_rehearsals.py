"""Rehearsals: computed while it is being said, taken over by the job that brings all of it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.runtime.job import Encoded, JobDone, JobStarted
from tests.menagerie import config_of
from tests.tiny import StageRig, alone, prompt
from tests.zoo import build

MODELS = ("llama", "gemma3_text", "deepseek_v2", "gpt_oss", "qwen3_next", "mamba2", "gear")
SYSTEM = 12
SAID = (*prompt(SYSTEM, 3), *prompt(50, 1))
CUE = prompt(9, 2)
ANSWER = 8


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param, config_of(request.param))


@pytest.fixture(scope="module")
def llama() -> Any:
    return build("llama", config_of("llama"))


def rehearse(rig: StageRig, uid: int, tokens: tuple[int, ...], **more: Any) -> None:
    rig.submit(
        uid, tokens, 0, system_end=SYSTEM, background=True, scope="s", rehearses=True, **more
    )


def turn(rig: StageRig, uid: int, tokens: tuple[int, ...], rehearsal: int, **more: Any) -> None:
    rig.submit(uid, tokens, ANSWER, system_end=SYSTEM, scope="s", rehearsal=rehearsal, **more)


def cached(rig: StageRig, uid: int) -> int:
    (started,) = [e for e in rig.events[uid] if isinstance(e, JobStarted)]
    return started.cached_tokens


def ended(rig: StageRig, uid: int) -> bool:
    return isinstance(rig.events.get(uid, [None])[-1], JobDone)


def steps(rig: StageRig, num: int = 1000) -> None:
    for _ in range(num):
        if rig.stage.idle:
            return
        rig.stage.step()


def test_what_was_said_while_another_spoke_is_computed_when_the_turn_comes(model: Any) -> None:
    """Word by word beside the speaker; then only the cue is new."""
    rig = StageRig(model, schedule="adaptive", max_rows=2)
    rig.submit(1, prompt(20, 5), 70)
    rehearse(rig, 2, SAID[:20])
    for at in range(20, len(SAID), 3):
        rig.stage.step()
        rig.stage.extend(2, SAID[at : at + 3])
    while rig.reason(1) is None:
        rig.stage.step()
    assert rig.stage.counters.read_tokens > 20
    steps(rig)
    assert not ended(rig, 2)
    computed = rig.stage.counters.prefill_tokens
    turn(rig, 3, (*SAID, *CUE), 2)
    steps(rig)
    assert ended(rig, 2)
    assert cached(rig, 3) == len(SAID)
    assert rig.stage.counters.prefill_tokens == computed + len(CUE)
    rig.run()
    assert rig.tokens(3) == alone(model, (*SAID, *CUE), ANSWER)
    assert rig.tokens(1) == alone(model, prompt(20, 5), 70)
    assert rig.stage.count().memory.stage == 0
    rig.submit(4, follow_up := (*SAID, *CUE, *rig.tokens(3), *CUE), 6, pieces=rig.done(3).segments)
    rig.run()
    assert rig.tokens(4) == alone(model, follow_up, 6)


def test_with_fixed_chunks_it_changes_no_bit(model: Any) -> None:
    """Of what is remembered, and of an answer that goes on from it."""
    plain, rehearsed = StageRig(model, codec="k5cv5"), StageRig(model, codec="k5cv5")
    first = (*prompt(SYSTEM, 3), *prompt(20, 6))
    for rig in (plain, rehearsed):
        rig.submit(1, first, 6, system_end=SYSTEM, scope="s")
        rig.run()
    told = (*first, *rehearsed.tokens(1), *SAID)
    known = len(first) + 6
    pieces = rehearsed.done(1).segments
    rehearsed.submit(
        2, told[: known + 18], 0, pieces=pieces, background=True, scope="s", rehearses=True
    )
    for at in range(known + 18, len(told), 5):
        rehearsed.stage.step()
        rehearsed.stage.extend(2, told[at : at + 5])
    steps(rehearsed)
    for rig in (plain, rehearsed):
        rig.submit(3, (*told, *CUE), ANSWER, pieces=pieces, scope="s", rehearsal=2)
        rig.run()
    assert cached(rehearsed, 3) >= cached(plain, 3) + 32
    assert rehearsed.tokens(3) == plain.tokens(3)
    ours, theirs = rehearsed.done(3).segments, plain.done(3).segments
    assert [(e.start, e.stop) for e in ours] == [(e.start, e.stop) for e in theirs]
    for one, two in zip(ours, theirs, strict=True):
        for name, array in one.payload.arrays.items():
            assert array.tobytes() == two.payload.arrays[name].tobytes(), name


@settings(max_examples=15)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9)), min_size=1, max_size=8),
    speaks=st.integers(0, 60),
    shared=st.integers(20, 62),
)
def test_however_it_is_said_and_however_it_ends(
    llama: Any, pieces: list[tuple[int, int]], speaks: int, shared: int
) -> None:
    """Also where the line turns out to be another than it seemed to become."""
    rig = StageRig(llama, schedule="adaptive", max_rows=3)
    if speaks:
        rig.submit(1, prompt(20, 5), speaks)
    rehearse(rig, 2, SAID[:14])
    at = 14
    for length, num_steps in pieces:
        rig.stage.extend(2, SAID[at : at + length])
        at = min(len(SAID), at + length)
        steps(rig, num_steps)
    told = (*SAID[:shared], *CUE)
    turn(rig, 3, told, 2)
    rig.run()
    assert ended(rig, 2)
    assert rig.tokens(3) == alone(llama, told, ANSWER)
    if speaks:
        assert rig.tokens(1) == alone(llama, prompt(20, 5), speaks)
    assert rig.stage.count().memory.stage == 0


def test_one_that_knows_no_more_leaves_the_row_and_rests(llama: Any) -> None:
    rig = StageRig(llama, schedule="adaptive", max_rows=2)
    rig.submit(1, prompt(20, 5), 100)
    rehearse(rig, 2, SAID[:30])
    while rig.reason(1) is None:
        rig.stage.step()
    assert rig.stage.counters.read_tokens == 30
    assert rig.stage.idle
    rig.stage.extend(2, SAID[30:33])
    assert not rig.stage.idle
    steps(rig)
    assert rig.stage.caches(2)[0].offset == 33


def test_what_is_heard_for_good_takes_it_over_too(llama: Any) -> None:
    rig = StageRig(llama, resident_bytes=1 << 30)
    rehearse(rig, 2, SAID[:32])
    steps(rig)
    rig.submit(3, SAID, 0, system_end=SYSTEM, background=True, scope="s", rehearsal=2)
    rig.run()
    assert cached(rig, 3) == 32
    assert ended(rig, 2)
    assert [(e.start, e.stop) for e in rig.done(3).segments] == [(0, SYSTEM), (SYSTEM, len(SAID))]


def test_a_cancelled_rehearsal_gives_the_decoded_copy_back(llama: Any) -> None:
    rig = StageRig(llama, codec="k5cv5", resident_bytes=1 << 30)
    rig.submit(1, prompt(40), 12, scope="s")
    rig.run()
    told = (*prompt(40), *rig.tokens(1), *SAID)
    chain = rig.done(1).segments
    rig.submit(2, told, 0, pieces=chain, handle=1, background=True, scope="s", rehearses=True)
    steps(rig)
    rig.stage.cancel(2)
    assert ended(rig, 2)
    rig.submit(3, (*told[:52], *CUE), ANSWER, pieces=chain, handle=1, scope="s")
    rig.run()
    assert rig.stage.counters.resident_hits == 2
    plain = StageRig(llama, codec="k5cv5")
    plain.submit(3, (*told[:52], *CUE), ANSWER, pieces=chain)
    plain.run()
    assert rig.tokens(3) == plain.tokens(3)


def test_a_copy_of_which_a_rehearsal_used_less_is_not_taken_for_the_whole(llama: Any) -> None:
    """What was rehearsed turns out to be wrong from early on, and the old question is asked."""
    rig = StageRig(llama, codec="k5cv5", resident_bytes=1 << 30, schedule="adaptive")
    rig.submit(1, prompt(40), 12, scope="s")
    rig.run()
    asked = rig.done(1).segments[:1]
    begun = [Encoded(0, 8, asked[0].payload)]
    told = (*prompt(8), *prompt(20, 7))
    rig.submit(2, told, 0, pieces=begun, handle=1, background=True, scope="s", rehearses=True)
    steps(rig)
    more = (*prompt(40), *CUE)
    rig.submit(3, more, ANSWER, pieces=asked, handle=1, scope="s", rehearsal=2)
    rig.run()
    assert cached(rig, 3) == 40
    plain = StageRig(llama, codec="k5cv5", schedule="adaptive")
    plain.submit(3, more, ANSWER, pieces=asked)
    plain.run()
    assert rig.tokens(3) == plain.tokens(3)


def test_it_goes_first_where_memory_is_short(llama: Any) -> None:
    one = StageRig(llama).spec.float_bytes_per_token * 256
    rig = StageRig(llama, memory_bytes=2 * one + one // 2)
    rehearse(rig, 2, SAID)
    rehearse(rig, 3, (*SAID[:20], *prompt(9, 8)))
    steps(rig)
    rehearse(rig, 4, prompt(30, 4))
    steps(rig)
    assert ended(rig, 4), "there is none for a third"
    rig.submit(5, prompt(100, 9), 8, scope="s")
    steps(rig)
    assert ended(rig, 3), "the newest"
    assert not ended(rig, 2)
    rig.stage.extend(2, prompt(400, 1))
    assert ended(rig, 2)
    rig.run()
    assert rig.tokens(5) == alone(llama, prompt(100, 9), 8)
    assert rig.stage.counters.short_of_memory == 0
