from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.envelope import Envelope
from greenroom.runtime.mailbox import Mailbox, MailboxSpec


def messages(mailbox: Mailbox) -> list[object]:
    taken: list[object] = []
    while (envelope := mailbox.take()) is not None:
        taken.append(envelope.message)
    return taken


def test_refuses_beyond_its_capacity_and_counts() -> None:
    mailbox = Mailbox(MailboxSpec(capacity=2))
    assert [mailbox.offer(Envelope(n, at=float(n))) for n in range(3)] == [True, True, False]
    stats = mailbox.stats(now=5.0)
    assert (stats.depth, stats.high_water, stats.rejected, stats.oldest_age_s) == (2, 2, 1, 5.0)
    assert messages(mailbox) == [0, 1]
    assert mailbox.stats(now=5.0).taken == 2


def test_a_waiting_line_is_served_in_order_and_not_overtaken() -> None:
    mailbox = Mailbox(MailboxSpec(capacity=1, when_full="wait"))
    assert [mailbox.offer_or_wait(Envelope(n)) for n in range(3)] == [True, False, False]
    first = mailbox.take()
    assert first is not None
    assert first.message == 0
    assert not mailbox.offer(Envelope("late"))  # the next in line has taken the room
    assert messages(mailbox) == [1, 2]


def test_signals_come_first_and_need_no_room() -> None:
    mailbox = Mailbox(MailboxSpec(capacity=1))
    mailbox.offer(Envelope("message"))
    mailbox.signal(Envelope("signal"))
    assert messages(mailbox) == ["signal", "message"]


def test_removing_a_queued_message_makes_room_for_one_that_waits() -> None:
    mailbox = Mailbox(MailboxSpec(capacity=1, when_full="wait"))
    queued, waiting = Envelope("queued"), Envelope("waiting")
    mailbox.offer_or_wait(queued)
    mailbox.offer_or_wait(waiting)
    assert mailbox.remove(queued)
    assert not mailbox.remove(queued)
    assert mailbox.stats(0.0).waiting == 0
    assert messages(mailbox) == ["waiting"]


@pytest.mark.parametrize("when_full", ["reject", "wait"])
@given(data=st.data(), capacity=st.integers(1, 4))
def test_order_and_bound_hold_for_any_sequence(
    when_full: str, data: st.DataObject, capacity: int
) -> None:
    mailbox = Mailbox(MailboxSpec(capacity=capacity))
    model: deque[Envelope] = deque()
    for n in range(data.draw(st.integers(0, 40))):
        match data.draw(st.sampled_from(["put", "take", "remove"])):
            case "put":
                envelope = Envelope(n)
                if when_full == "wait":
                    mailbox.offer_or_wait(envelope)
                    model.append(envelope)
                else:
                    fits = len(model) < capacity
                    assert mailbox.offer(envelope) is fits
                    if fits:
                        model.append(envelope)
            case "take":
                assert mailbox.take() is (model.popleft() if model else None)
            case _:
                if model:
                    victim = model[data.draw(st.integers(0, len(model) - 1))]
                    model.remove(victim)
                    assert mailbox.remove(victim)
        assert len(mailbox) == min(len(model), capacity)
        assert len(mailbox) <= capacity
    assert mailbox.clear() == list(model)
