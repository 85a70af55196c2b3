"""The stage on a tiny random model: exact tokens whatever happens around them."""

from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache, make_prompt_cache

from greenroom.runtime.codec import DEFAULT_CODEC
from greenroom.runtime.encoding import decode
from greenroom.runtime.job import JobDone, JobProgress, JobStarted
from greenroom.runtime.records import Sampling
from greenroom.runtime.restore import restore
from tests.tiny import StageRig, alone, prompt, tiny_llama, token


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def answers(model: Any) -> list[list[int]]:
    """What each of a few prompts is answered alone, by the plainest means."""
    rig = StageRig(model)  # wraps the head; the reference uses the same model
    assert rig.stage.idle
    return [alone(model, prompt(length, salt), 40) for salt, length in enumerate(LENGTHS)]


LENGTHS = (5, 16, 33, 50, 1)


@pytest.mark.parametrize("number", range(len(LENGTHS)))
def test_alone_it_gives_the_models_own_answer(
    model: Any, answers: list[list[int]], number: int
) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(LENGTHS[number], number), 40)
    rig.run()
    assert rig.tokens(1) == answers[number]
    assert rig.reason(1) == "length"


def test_one_that_joins_in_mid_decode_changes_nothing(model: Any, answers: list[list[int]]) -> None:
    rig = StageRig(model)
    rig.submit(0, prompt(LENGTHS[0], 0), 40)
    while len(rig.tokens(0)) < 10:
        rig.stage.step()
    rig.submit(3, prompt(LENGTHS[3], 3), 40)
    rig.run()
    assert rig.tokens(0) == answers[0]
    assert rig.tokens(3) == answers[3]
    assert rig.stage.counters.mean_batch > 1.4


@settings(max_examples=25)
@given(
    arrivals=st.lists(
        st.tuples(
            st.integers(0, len(LENGTHS) - 1),  # which prompt
            st.integers(0, 12),  # steps before it arrives
            st.integers(1, 40),  # max_tokens
            st.none() | st.integers(0, 15),  # cancelled after so many steps
        ),
        min_size=1,
        max_size=5,
    ),
    max_batch_size=st.sampled_from([1, 2, 4]),
)
def test_arrivals_ends_and_cancels_change_nobody_elses_tokens(
    model: Any,
    answers: list[list[int]],
    arrivals: list[tuple[int, int, int, int | None]],
    max_batch_size: int,
) -> None:
    rig = StageRig(model, max_batch_size=max_batch_size)
    cancels: dict[int, int] = {}
    for uid, (number, wait, max_tokens, cancel) in enumerate(arrivals):
        for _ in range(wait):
            step_and_cancel(rig, cancels)
        rig.submit(uid, prompt(LENGTHS[number], number), max_tokens)
        if cancel is not None:
            cancels[uid] = cancel
    while not rig.stage.idle:
        step_and_cancel(rig, cancels)
    for uid, (number, _, max_tokens, cancel) in enumerate(arrivals):
        expected = answers[number][:max_tokens]
        if cancel is None:
            assert rig.tokens(uid) == expected
        else:
            assert rig.tokens(uid) == expected[: len(rig.tokens(uid))]


def step_and_cancel(rig: StageRig, cancels: dict[int, int]) -> None:
    rig.stage.step()
    for uid in list(cancels):
        cancels[uid] -= 1
        if cancels[uid] < 0:
            rig.stage.cancel(uid)
            del cancels[uid]


def test_a_cancelled_job_leaves_within_one_step_and_says_nothing_more(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(30), 1000)
    for _ in range(6):
        rig.stage.step()
    seen = len(rig.events[1])
    rig.stage.cancel(1)
    assert rig.stage.idle
    rig.stage.step()
    assert len(rig.events[1]) == seen
    rig.stage.finish(1, 3)  # comes too late; ignored
    assert rig.stage.counters.cancelled == 1


def test_an_end_token_ends_and_is_remembered(model: Any, answers: list[list[int]]) -> None:
    end = answers[2][7]
    first = answers[2].index(end)
    rig = StageRig(model)
    rig.submit(2, prompt(LENGTHS[2], 2), 40, stop_tokens=(end,))
    rig.run()
    assert rig.reason(2) == "stop"
    assert rig.tokens(2) == answers[2][: first + 1]
    if first:
        assert rig.done(2).segments[-1].stop == LENGTHS[2] + first + 1


def test_one_token_is_an_answer_of_which_only_the_prompt_is_remembered(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(20), 1)
    rig.run()
    assert len(rig.tokens(1)) == 1
    assert [(s.start, s.stop) for s in rig.done(1).segments] == [(0, 20)]


def test_what_is_not_kept_is_not_remembered(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(20), 1000)
    while len(rig.tokens(1)) < 9:
        rig.stage.step()
    rig.stage.finish(1, 4)
    assert [(s.start, s.stop) for s in rig.done(1).segments] == [(0, 20), (20, 24)]
    assert rig.stage.idle


@pytest.mark.parametrize("codec", ["float", DEFAULT_CODEC])
def test_the_second_turn_stands_on_decoded_segments_and_on_nothing_else(
    model: Any, codec: str
) -> None:
    first = StageRig(model, codec=codec)
    first.submit(1, prompt(40), 12)
    first.run()
    segments = first.done(1).segments
    tokens = prompt(40) + tuple(first.tokens(1)) + prompt(6, 9)
    second = StageRig(model, codec=codec, chunk_tokens=4)
    second.submit(2, tokens, 12, pieces=segments)
    second.stage.step()
    started = second.events[2][0]
    assert isinstance(started, JobStarted)
    assert started.cached_tokens == 52
    cache = second.stage.caches(2)
    assert len(cache) == len(second.spec.layers)
    decoded = [decode(second.spec, s.payload) for s in segments]
    for layer, kept in enumerate(cache):
        for side, live in ((0, kept.keys), (1, kept.values)):
            parts = mx.concatenate([d.rows(layer)[side] for d in decoded], axis=2)
            assert mx.array_equal(live[..., :52, :], parts)
    second.run()
    assert second.tokens(2) == continued(model, second, segments, tokens)
    hot = StageRig(model, codec=codec, chunk_tokens=4)
    hot.submit(2, tokens, 12, pieces=segments)
    hot.run()
    assert hot.tokens(2) == second.tokens(2)


def continued(model: Any, rig: StageRig, segments: Any, tokens: tuple[int, ...]) -> list[int]:
    """The answer from decoded segments, by the plainest means."""
    pieces = [(s.payload, s.stop - s.start) for s in segments]
    cache: list[KVCache] = restore(rig.spec, pieces)
    answer: list[int] = []
    new = list(tokens[sum(used for _, used in pieces) :])
    while len(answer) < 12:
        logits = model(mx.array([new]), cache=cache)
        new = [token(mx.argmax(logits[0, -1]))]
        answer += new
    return answer


def test_an_exact_resend_computes_nothing(model: Any, answers: list[list[int]]) -> None:
    rig = StageRig(model)
    rig.submit(3, prompt(LENGTHS[3], 3), 8)
    rig.run()
    prompt_segment = rig.done(3).segments[:1]
    computed = rig.stage.counters.prefill_tokens
    rig.events.clear()
    rig.submit(4, prompt(LENGTHS[3], 3), 8, pieces=prompt_segment)
    rig.run()
    assert rig.tokens(4) == answers[3][:8]
    assert rig.stage.counters.prefill_tokens == computed
    assert [(s.start, s.stop) for s in rig.done(4).segments] == [(50, 58)]


def test_a_seeded_answer_is_the_same_beside_another(model: Any) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.9, seed=4)
    rig = StageRig(model)
    rig.submit(1, prompt(20), 20, sampling=sampling)
    rig.run()
    both = StageRig(model)
    both.submit(0, prompt(9, 2), 30, sampling=Sampling(temperature=1.0, top_p=1.0, seed=5))
    both.submit(1, prompt(20), 20, sampling=sampling)
    both.run()
    assert both.tokens(1) == rig.tokens(1)
    assert isinstance(both.events[1][-1], JobDone)


@pytest.mark.parametrize("settle", [True, False], ids=["settled", "at once"])
@pytest.mark.parametrize("codec", ["float", DEFAULT_CODEC])
def test_a_resident_copy_is_what_decoding_gives_to_the_bit(
    model: Any, codec: str, settle: bool
) -> None:
    rig = StageRig(model, codec=codec, chunk_tokens=4, resident_bytes=1 << 30)
    rig.submit(1, prompt(40), 12)
    rig.run(settle=settle)
    segments = rig.done(1).segments
    for turn in range(2, 5):
        tokens = chain_of(rig, turn - 1) + prompt(9, turn)
        rig.submit(turn, tokens, 7, pieces=segments, handle=turn - 1)
        rig.stage.step()
        for layer, live in enumerate(rig.stage.caches(turn)):
            decoded = [decode(rig.spec, s.payload).rows(layer) for s in segments]
            for side, kept in enumerate((live.keys, live.values)):
                whole = mx.concatenate([d[side] for d in decoded], axis=2)
                assert mx.array_equal(kept[..., : len(tokens) - 9, :], whole)
        rig.run(settle=settle)
        plain = StageRig(model, codec=codec, chunk_tokens=4)
        plain.submit(turn, tokens, 7, pieces=segments)
        plain.run()
        assert rig.tokens(turn) == plain.tokens(turn)
        segments = (*segments, *rig.done(turn).segments)
    assert rig.stage.counters.resident_hits == 3


def test_a_prompt_sent_again_computes_one_token_and_leaves_a_copy_too(model: Any) -> None:
    rig = StageRig(model, codec=DEFAULT_CODEC, resident_bytes=1 << 30)
    rig.submit(1, prompt(40), 12)
    rig.run()
    question = rig.done(1).segments[:1]
    for turn in (2, 3):
        rig.submit(turn, prompt(40), 12, pieces=question, handle=turn - 1)
        computed = rig.stage.counters.prefill_tokens
        rig.run()
        assert rig.stage.counters.prefill_tokens == computed
    plain = StageRig(model, codec=DEFAULT_CODEC)
    plain.submit(2, prompt(40), 12, pieces=question)
    plain.run()
    assert rig.tokens(2) == rig.tokens(3) == plain.tokens(2)
    assert rig.stage.counters.resident_hits == 2


def chain_of(rig: StageRig, last: int) -> tuple[int, ...]:
    """All tokens up to the end of a job's answer, for jobs that continue each other."""
    whole: tuple[int, ...] = prompt(40)
    for uid in range(1, last + 1):
        whole += (prompt(9, uid) if uid > 1 else ()) + tuple(rig.tokens(uid))
    return whole


def test_a_resident_copy_serves_a_branch_and_none_is_needed(model: Any) -> None:
    rig = StageRig(model, resident_bytes=1 << 30)
    rig.submit(1, prompt(40), 12)
    rig.run()
    branch = prompt(40) + prompt(8, 3)
    rig.submit(2, branch, 6, pieces=rig.done(1).segments[:1], handle=1)
    rig.run()
    again = StageRig(model, resident_bytes=0)
    again.submit(2, branch, 6, pieces=rig.done(1).segments[:1], handle=1)
    again.run()
    assert rig.tokens(2) == again.tokens(2)
    assert (rig.stage.counters.resident_hits, again.stage.counters.resident_hits) == (1, 0)


def chunks(rig: StageRig) -> int:
    return rig.stage.counters.background_chunks


def test_what_is_heard_waits_for_everybody_and_is_encoded_without_an_answer(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(40), 0, background=True)
    rig.stage.step()
    assert chunks(rig) == 1, "nobody else is there"
    rig.submit(2, prompt(20, 1), 6)
    while rig.reason(2) is None:
        rig.stage.step()
        assert chunks(rig) == 1, "somebody else is there"
    rig.run()
    assert chunks(rig) == 3
    assert rig.tokens(1) == []
    assert [type(e) for e in rig.events[1]] == [JobStarted, JobDone]
    assert [(s.start, s.stop) for s in rig.done(1).segments] == [(0, 40)]
    assert rig.tokens(2) == alone(model, prompt(20, 1), 6)


def test_who_has_heard_answers_as_if_it_were_all_said_at_once(model: Any) -> None:
    rig = StageRig(model, resident_bytes=1 << 24)
    rig.submit(1, prompt(40), 0, background=True)
    rig.run()
    rig.submit(2, prompt(50), 8, pieces=rig.done(1).segments, handle=1)
    rig.run()
    assert rig.events[2][0] == JobStarted(cached_tokens=40)
    assert rig.stage.counters.resident_hits == 1
    assert rig.tokens(2) == alone(model, prompt(50), 8)


def test_what_is_heard_is_promoted_when_somebody_waits_for_it(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(20, 1), 40)
    rig.submit(2, prompt(40), 0, background=True)
    rig.submit(3, prompt(33), 0, background=True)
    for _ in range(4):
        rig.stage.step()
    rig.stage.promote(2)
    rig.stage.promote(99)
    while not isinstance(rig.events.get(2, [None])[-1], JobDone):
        rig.stage.step()
    assert rig.reason(1) is None, "it has not waited for the other's answer"
    assert 3 not in rig.events
    rig.run()
    assert rig.tokens(1) == alone(model, prompt(20, 1), 40)


def test_hearing_can_be_given_up_at_any_step(model: Any) -> None:
    for num_steps in range(3):
        rig = StageRig(model)
        rig.submit(1, prompt(40), 0, background=True)
        for _ in range(num_steps):
            rig.stage.step()
        rig.stage.cancel(1)
        assert rig.stage.idle
        assert not any(isinstance(e, JobDone) for e in rig.events.get(1, []))


def test_how_far_a_prompt_has_been_read_is_told_after_every_chunk_but_its_last(model: Any) -> None:
    rig = StageRig(model)
    rig.submit(1, prompt(40), 2)
    rig.submit(2, prompt(40, 1), 0, background=True)
    rig.run()
    assert [e.done_tokens for e in rig.events[1] if isinstance(e, JobProgress)] == [16, 32]
    assert not any(isinstance(e, JobProgress) for e in rig.events[2])


def test_what_is_heard_beside_a_reply_is_what_a_prefill_gives(model: Any) -> None:
    """Within 1e-4, as a prefill in one piece; nobody's tokens change, and no chunk is due."""
    rig = StageRig(model, schedule="adaptive", max_rows=2)
    rig.submit(1, prompt(20, 1), 90)
    while len(rig.tokens(1)) < 3:
        rig.stage.step()
    rig.submit(2, prompt(60), 0, background=True)
    rig.run()
    assert rig.stage.counters.read_tokens == 60
    assert chunks(rig) == 0
    assert rig.tokens(1) == alone(model, prompt(20, 1), 90)
    assert [type(e) for e in rig.events[2]] == [JobStarted, JobDone]
    (heard,) = rig.done(2).segments
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([prompt(60)]), cache=cache))
    for layer, whole in enumerate(cache):
        for ours, theirs in zip(
            decode(rig.spec, heard.payload).rows(layer),
            (whole.keys[..., :60, :], whole.values[..., :60, :]),
            strict=True,
        ):
            assert mx.allclose(ours, theirs, rtol=0, atol=1e-4).item()


def test_who_reads_goes_on_in_chunks_when_the_others_have_ended(model: Any) -> None:
    rig = StageRig(model, schedule="adaptive", max_rows=2)
    rig.submit(1, prompt(20, 1), 12)
    rig.submit(2, prompt(60), 0, background=True)
    rig.run()
    assert 0 < rig.stage.counters.read_tokens < 12
    assert chunks(rig) > 0
    rig.submit(3, prompt(70), 8, pieces=rig.done(2).segments)
    rig.run()
    assert rig.tokens(3) == alone(model, prompt(70), 8)


def test_who_reads_is_taken_out_at_once_when_somebody_waits_for_it(model: Any) -> None:
    rig = StageRig(model, schedule="adaptive", max_rows=2)
    rig.submit(1, prompt(20, 1), 200)
    rig.submit(2, prompt(80), 0, background=True)
    while rig.stage.counters.read_tokens < 10:
        rig.stage.step()
    rig.stage.promote(2)
    assert rig.stage.caches(2)[0].offset == 10
    before = len(rig.tokens(1))
    while not isinstance(rig.events[2][-1], JobDone):
        rig.stage.step()
    assert rig.stage.counters.read_tokens == 10
    assert len(rig.tokens(1)) - before <= 10, "in chunks, not token by token"
    rig.submit(3, prompt(90), 8, pieces=rig.done(2).segments)
    rig.run()
    assert rig.tokens(3) == alone(model, prompt(90), 8)
    assert rig.tokens(1) == alone(model, prompt(20, 1), 200)


def test_a_reply_takes_the_row_of_one_who_reads(model: Any) -> None:
    rig = StageRig(model, schedule="adaptive", max_rows=2)
    rig.submit(1, prompt(20, 1), 60)
    rig.submit(2, prompt(80), 0, background=True)
    while rig.stage.counters.read_tokens < 10:
        rig.stage.step()
    rig.submit(3, prompt(9, 2), 20)
    while not rig.tokens(3):
        rig.stage.step()
    rig.stage.step()
    read = rig.stage.counters.read_tokens
    while rig.reason(3) is None:
        rig.stage.step()
    assert rig.stage.counters.read_tokens == read, "two rows, and two replies"
    rig.run()
    assert rig.stage.counters.read_tokens > read
    assert rig.tokens(1) == alone(model, prompt(20, 1), 60)
    assert rig.tokens(3) == alone(model, prompt(9, 2), 20)


def test_who_has_been_told_something_waits_where_a_second_row_costs_too_much(model: Any) -> None:
    rig = StageRig(model, schedule="adaptive", max_rows=2, max_row_cost=-1.0)
    rig.submit(1, prompt(20, 1), 60)
    rig.submit(2, prompt(80), 0, background=True)
    rig.run()
    assert rig.stage.counters.read_tokens == 0
    assert rig.tokens(1) == alone(model, prompt(20, 1), 60)
    rig.submit(3, prompt(90), 8, pieces=rig.done(2).segments)
    rig.run()
    assert rig.tokens(3) == alone(model, prompt(90), 8)


def test_one_who_reads_can_be_given_up_at_any_step(model: Any) -> None:
    for num_read in (1, 7):
        rig = StageRig(model, schedule="adaptive", max_rows=2)
        rig.submit(1, prompt(20, 1), 40)
        rig.submit(2, prompt(80), 0, background=True)
        while rig.stage.counters.read_tokens < num_read:
            rig.stage.step()
        rig.stage.cancel(2)
        rig.run()
        assert rig.stage.counters.read_tokens == num_read
        assert rig.tokens(1) == alone(model, prompt(20, 1), 40)
        assert rig.stage.count().memory.stage == 0
