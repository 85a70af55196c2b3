import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.errors import InvalidRequest, Unavailable
from greenroom.runtime.supervise import (
    Backoff,
    Decision,
    RestartLog,
    Supervision,
    default_decider,
)


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (InvalidRequest("no"), Decision.RESUME),
        (Unavailable("later"), Decision.RESUME),
        (ValueError(), Decision.RESTART),
        (MemoryError(), Decision.RESTART),
    ],
)
def test_typed_refusals_are_not_crashes(error: Exception, decision: Decision) -> None:
    assert default_decider(error) is decision


def test_a_decider_that_fails_escalates() -> None:
    def broken(error: BaseException) -> Decision:
        raise KeyError(error)

    assert Supervision(decider=broken).decide(ValueError()) is Decision.ESCALATE


@given(
    initial=st.floats(0.001, 10),
    factor=st.floats(1, 10),
    top=st.floats(10, 100),
    jitter=st.floats(0, 0.9),
    attempt=st.integers(0, 10_000),
    spread=st.floats(0, 1, exclude_max=True),
)
def test_the_delay_stays_within_its_bounds(
    initial: float, factor: float, top: float, jitter: float, attempt: int, spread: float
) -> None:
    backoff = Backoff(initial_s=initial, factor=factor, max_s=top, jitter=jitter)
    delay = backoff.delay(attempt, spread)
    assert initial * (1 - jitter) * 0.999 <= delay <= top * (1 + jitter) * 1.001


def test_delays_grow_to_the_maximum_and_start_over_after_a_quiet_while() -> None:
    backoff = Backoff(initial_s=1.0, factor=2.0, max_s=5.0, jitter=0.0, reset_after_s=100.0)
    policy = Supervision(backoff=backoff, max_restarts=100)
    log = RestartLog()
    assert [log.next_delay(policy, float(n), 0.5) for n in range(4)] == [1.0, 2.0, 4.0, 5.0]
    assert log.next_delay(policy, 102.9, 0.5) == 5.0
    assert log.next_delay(policy, 202.9, 0.5) == 1.0
    assert log.count == 6


@given(st.lists(st.floats(0, 50), max_size=60), st.integers(0, 5), st.floats(1, 100))
def test_never_more_restarts_in_a_window_than_allowed(
    gaps: list[float], most: int, window: float
) -> None:
    policy = Supervision(max_restarts=most, window_s=window)
    log, now, granted = RestartLog(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        recent = [time for time in granted if now - time < window]
        delay = log.next_delay(policy, now, 0.0)
        assert (delay is not None) is (len(recent) < most)
        if delay is not None:
            granted.append(now)
