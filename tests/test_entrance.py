"""Memory for the stage, on a tiny model and tiny limits: who waits, who is refused, what goes."""

from typing import Any

import pytest

from greenroom.runtime.admission import BLOCK, Backing
from greenroom.runtime.errors import NoMemory, TooLargeForMemory
from greenroom.runtime.job import HotWanted, JobDone, JobEnded, JobRefused, JobStarted, JobWaits
from greenroom.runtime.resident import HEADROOM
from greenroom.runtime.spec import extract_spec
from tests.tiny import StageRig, alone, prompt, tiny_llama


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


def block(model: Any) -> int:
    """Bytes of the smallest sequence."""
    return extract_spec(model).float_bytes_per_token * BLOCK


def kinds(rig: StageRig, uid: int) -> list[type]:
    return [type(event) for event in rig.events.get(uid, [])]


def test_one_waits_until_another_has_left_and_loses_nothing(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model) * 3 // 2)
    rig.submit(1, prompt(30), 12)
    rig.submit(2, prompt(20, 1), 12)
    rig.submit(3, prompt(9, 2), 12)
    while not rig.stage.idle:
        rig.stage.step()
    assert kinds(rig, 2) == [JobWaits]
    assert 3 not in rig.events, "nobody overtakes"
    counters = rig.stage.count()
    assert (counters.waiting, counters.running, counters.short_of_memory) == (2, 1, 1)
    assert counters.memory.stage == block(model)
    for uid in (1, 2, 3):
        rig.stage.finish(uid, 12)
        while not rig.stage.idle:
            rig.stage.step()
    assert [rig.tokens(uid) for uid in (1, 2, 3)] == [
        alone(model, prompt(30), 12),
        alone(model, prompt(20, 1), 12),
        alone(model, prompt(9, 2), 12),
    ]
    assert rig.stage.count().memory.stage == 0


def test_one_that_leaves_or_is_cancelled_lets_the_next_one_in(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model))
    rig.submit(1, prompt(30), 100)
    rig.submit(2, prompt(20), 5)
    for _ in range(5):
        rig.stage.step()
    rig.stage.cancel(1)
    rig.run()
    assert rig.tokens(2) == alone(model, prompt(20), 5)


def test_what_can_never_fit_is_refused_at_once_with_numbers(model: Any) -> None:
    limit = block(model) * 2 - 1
    rig = StageRig(model, memory_bytes=limit)
    rig.submit(1, prompt(BLOCK), 5)
    rig.submit(2, prompt(20), 5)
    rig.run()
    (event,) = rig.events[1]
    assert isinstance(event, JobRefused)
    assert isinstance(event.error, TooLargeForMemory)
    assert (event.error.needed, event.error.limit) == (2 * block(model), limit)
    assert event.error.code == "context_exceeds_memory"
    assert rig.tokens(2) == alone(model, prompt(20), 5), "and nobody waits for it"
    assert rig.stage.counters.refused == 1


def test_a_wait_ends_with_a_refusal_that_may_be_tried_again(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model))
    rig.submit(1, prompt(30), 100)
    rig.submit(2, prompt(20), 5)
    rig.submit(3, prompt(20), 5)
    for _ in range(4):
        rig.stage.step()
    rig.stage.refuse(1, 7.0)  # it runs
    rig.stage.refuse(3, 7.0)  # it waits for somebody, not for memory
    rig.stage.refuse(2, 7.0)
    error = rig.events[2][-1]
    assert isinstance(error, JobRefused)
    assert isinstance(error.error, NoMemory)
    assert error.error.retry_after_s == 7.0
    assert (error.error.needed, error.error.free) == (block(model), 0)
    rig.run()
    assert len(rig.tokens(1)) == 100
    rig.run()
    assert rig.tokens(3) == alone(model, prompt(20), 5)


def test_decoded_copies_go_first_and_ones_own_last(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model) * 3, resident_bytes=1 << 40)
    for uid, length in ((1, 20), (2, 30)):
        rig.submit(uid, prompt(length), 5)
        rig.run()
    first = rig.done(1).segments
    copies = rig.stage.count().memory.resident
    assert copies == 2 * block(model), "there is room for both, and not for what comes"
    rig.submit(3, prompt(2 * BLOCK + 30), 5, pieces=first[:1], handle=1)
    rig.run()
    assert rig.events[3][0] == JobStarted(cached_tokens=20)
    assert rig.stage.counters.resident_hits == 1
    assert rig.stage.counters.short_of_memory == 0
    held = rig.stage.count().memory
    assert held.resident + held.stage <= held.limit


def test_hot_segments_are_asked_for_before_anybody_is_refused(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model) * 2)
    rig.stage.back(Backing(copies=0, hot=block(model) * 3 // 2, pending=100))
    rig.submit(1, prompt(20), 5)
    rig.stage.step()
    missing = block(model) * 3 // 2 + 100 - block(model)
    assert rig.events[1][0] == HotWanted(missing)
    assert kinds(rig, 1) == [HotWanted, JobWaits]
    assert rig.stage.idle
    rig.stage.back(Backing(copies=0, hot=block(model) * 3 // 2 + 100 - missing))
    rig.run()
    assert rig.tokens(1) == alone(model, prompt(20), 5)
    rig.stage.back(Backing(copies=0, hot=block(model) * 2 + 5))
    assert rig.events[-1] == [HotWanted(5)]


def test_an_answer_ends_where_memory_ends_and_what_it_said_is_kept(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model) * 2)
    rig.submit(1, prompt(10), BLOCK * 4)
    rig.run()
    assert len(rig.tokens(1)) == 2 * BLOCK - 10
    assert JobEnded("length", out_of_memory=True) in rig.events[1]
    assert rig.done(1).segments[-1].stop == 2 * BLOCK
    assert rig.stage.counters.cut_short == 1
    assert HEADROOM <= BLOCK


def test_what_is_heard_waits_for_memory_too(model: Any) -> None:
    rig = StageRig(model, memory_bytes=block(model))
    rig.submit(1, prompt(30), 5)
    rig.stage.step()
    rig.submit(2, prompt(40), 0, background=True)
    while not rig.stage.idle:
        rig.stage.step()
    assert kinds(rig, 2) == [JobWaits]
    rig.stage.finish(1, 5)
    rig.run()
    assert kinds(rig, 2)[-1] is JobDone
