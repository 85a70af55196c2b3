"""Who gets memory: properties that hold for every stage and every limit."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.admission import BLOCK, Holdings, Ledger, Verdict, admit

amounts = st.integers(0, 1000)
held = st.builds(Holdings, amounts, amounts, amounts, amounts, amounts)


@given(st.integers(1, 1000), st.integers(0, 1000), held)
def test_what_is_admitted_fits_once_the_copies_named_are_gone(
    needed: int, padding: int, holdings: Holdings
) -> None:
    alone = max(1, needed - padding)
    decision = admit(needed, alone, holdings)
    assert (decision.verdict is Verdict.NEVER) == (alone > holdings.limit)
    assert 0 <= decision.drop_resident <= holdings.resident
    assert 0 <= decision.drop_hot <= holdings.hot
    if decision.verdict is Verdict.NEVER:
        assert decision.drop_resident == decision.drop_hot == 0
        return
    left = holdings.free + decision.drop_resident
    if decision.verdict is Verdict.NOW:
        assert needed <= left
        assert not decision.drop_hot
        assert not decision.drop_resident or left == needed, "no more than it takes"
    else:
        assert needed > left
        assert decision.drop_resident == holdings.resident
        assert decision.drop_hot == min(holdings.hot, needed - left)


@given(st.integers(1, 1000), held)
def test_whoever_waits_comes_in_when_all_that_can_go_has_gone(
    needed: int, holdings: Holdings
) -> None:
    decision = admit(needed, needed, holdings)
    empty = Holdings(holdings.limit)
    if decision.verdict is not Verdict.NEVER:
        assert admit(needed, needed, empty).verdict is Verdict.NOW
    # One step on the way: the writes end, and what was asked for of the hot ones is gone.
    later = msgspec.structs.replace(
        holdings,
        stage=0,
        resident=holdings.resident - decision.drop_resident,
        hot=holdings.hot - decision.drop_hot,
        pending=0,
    )
    if decision.verdict is Verdict.LATER:
        again = admit(needed, needed, later)
        assert again.verdict is Verdict.NOW or again.drop_hot


@given(
    st.integers(1, 50),
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2000)), max_size=20),
)
def test_a_ledger_counts_every_row_at_the_longest_ones_length(
    per_token: int, fixed: int, claims: list[tuple[int, int]]
) -> None:
    ledger = Ledger(per_token, fixed, 1 << 40)
    lengths: dict[int, int] = {}
    for uid, length in claims:
        before = ledger.holdings(0).stage
        needed = ledger.needed(uid, length)
        if length:
            ledger.claim(uid, length)
            lengths[uid] = -(-length // BLOCK) * BLOCK
            assert ledger.holdings(0).stage == before + needed
            assert ledger.claimed(uid) >= length
        else:
            ledger.release(uid)
            lengths.pop(uid, None)
        rows = [fixed + per_token * max(lengths.values(), default=0)] * len(lengths)
        assert ledger.holdings(0).stage == sum(rows)
        assert all(ledger.alone(n) == fixed + per_token * n for n in lengths.values())
