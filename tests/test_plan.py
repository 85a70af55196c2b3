"""The planner: properties that hold for every stage and every budget."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from greenroom.runtime.cost import ChunkCost
from greenroom.runtime.plan import (
    GAP_STEPS,
    GRAIN,
    HEAD_START,
    SPREAD,
    WELCOME,
    WORTH_FOLLOWING,
    WORTH_READING,
    Budget,
    Lane,
    Phase,
    SequenceView,
    background_chunk,
    chunk,
    decode_gap_s,
    due,
    plan,
)
from greenroom.runtime.records import Priority

costs = st.builds(ChunkCost, st.floats(0.0, 0.5), st.floats(1e-6, 1.0), st.floats(0.0, 1e-5))
budgets = st.builds(
    Budget,
    max_batch_size=st.integers(1, 4),
    chunk_tokens=st.integers(1, 2048),
    schedule=st.sampled_from(["adaptive", "fixed"]),
    max_decode_gap_s=st.floats(0.001, 2.0),
    cost=costs,
    max_background_s=st.floats(0.001, 2.0),
    max_rows=st.integers(0, 5),
    told_reads=st.booleans(),
)


@st.composite
def stages(draw: st.DrawFn) -> list[SequenceView]:
    phases = draw(st.lists(st.sampled_from(list(Phase)), max_size=8))
    return [
        SequenceView(
            uid=i,
            phase=phase,
            remaining=draw(st.integers(1, 8192)) if phase in (Phase.WAITING, Phase.PREFILL) else 0,
            order=i,
            last_planned=draw(st.integers(0, 50)) if phase is Phase.PREFILL else -1,
            context=draw(st.integers(0, 8192)),
        )
        for i, phase in enumerate(phases)
    ]


@given(stages(), budgets)
def test_every_decoding_sequence_gets_its_token_and_one_at_most_a_chunk(
    sequences: list[SequenceView], budget: Budget
) -> None:
    step = plan(sequences, budget)
    assert set(step.decode) == {s.uid for s in sequences if s.phase is Phase.DECODE}
    if step.prefill is not None:
        uid, tokens = step.prefill
        chosen = sequences[uid]
        assert chosen.phase in (Phase.WAITING, Phase.PREFILL)
        assert 1 <= tokens <= min(chosen.remaining, max(budget.chunk_tokens, GRAIN))
        assert step.num_tokens[uid] == tokens


@given(stages(), budgets)
def test_work_is_done_whenever_there_is_room(sequences: list[SequenceView], budget: Budget) -> None:
    on_stage = [s for s in sequences if s.phase in (Phase.PREFILL, Phase.DECODE)]
    prefilling = any(s.phase is Phase.PREFILL for s in on_stage)
    waiting = any(s.phase is Phase.WAITING for s in sequences)
    has_chunk = plan(sequences, budget).prefill is not None
    assert has_chunk == (prefilling or (waiting and len(on_stage) < budget.max_batch_size))


@given(stages(), budgets)
def test_nobody_joins_a_full_stage(sequences: list[SequenceView], budget: Budget) -> None:
    step = plan(sequences, budget)
    on_stage = [s for s in sequences if s.phase in (Phase.PREFILL, Phase.DECODE)]
    if step.prefill is not None and sequences[step.prefill[0]].phase is Phase.WAITING:
        assert len(on_stage) < budget.max_batch_size


def prefilling(remaining: int, context: int = 0) -> SequenceView:
    return SequenceView(0, Phase.PREFILL, remaining, 0, context=context)


@given(st.integers(1, 10_000), budgets, st.booleans())
def test_chunks_add_up_to_the_prompt(prompt: int, budget: Budget, decoding: bool) -> None:
    pieces: list[int] = []
    while (done := sum(pieces)) < prompt:
        pieces.append(chunk(prefilling(prompt - done, done), budget, decoding=decoding))
        assert pieces[-1] >= 1
    assert sum(pieces) == prompt
    if budget.schedule == "adaptive" and not (decoding and budget.cost.pair_s):
        assert max(pieces) - min(pieces) <= 1, "pieces of one prompt are equal"


@given(st.integers(0, 10_000), budgets)
def test_the_gap_bounds_a_chunk_only_while_somebody_decodes(context: int, budget: Budget) -> None:
    view = prefilling(100_000, context)
    alone = chunk(view, budget, decoding=False)
    beside = chunk(view, budget, decoding=True)
    assert beside <= max(alone, GRAIN)
    if budget.schedule == "adaptive" and beside > GRAIN:
        assert budget.cost.seconds(beside, context) <= budget.max_decode_gap_s + 1e-6


def test_the_gap_is_the_one_asked_for_or_follows_the_decode_step() -> None:
    assert decode_gap_s(0.5, 0.1) == 0.5
    assert decode_gap_s(0.0, 0.1) == GAP_STEPS * 0.1


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), budgets)
def test_two_that_prefill_alternate_and_all_come_to_an_end(
    prompts: list[int], budget: Budget
) -> None:
    left = dict(enumerate(prompts))
    phases = dict.fromkeys(left, Phase.WAITING)
    served = dict.fromkeys(left, -1)
    history: list[int] = []
    step_number = 0
    while left:
        views = [
            SequenceView(uid, phases[uid], left[uid], uid, served[uid]) for uid in sorted(left)
        ]
        prefill = plan(views, budget).prefill
        assert prefill is not None, "somebody starves"
        uid, tokens = prefill
        others = [u for u in left if phases[u] is Phase.PREFILL and u != uid]
        if history and others:
            assert history[-1] != uid, "one agent takes two chunks in a row past another"
        phases[uid] = Phase.PREFILL
        served[uid] = step_number
        history.append(uid)
        left[uid] -= tokens
        if not left[uid]:
            del left[uid]  # it leaves the stage at once: only prefill is looked at here
        step_number += 1


@st.composite
def with_background(draw: st.DrawFn) -> list[SequenceView]:
    """A stage on which some only hear; they never decode."""

    def hears(s: SequenceView) -> SequenceView:
        return structs.replace(
            s,
            lane=Lane.BACKGROUND,
            remaining=draw(st.integers(0, 100)) if s.remaining else 0,
            beyond=draw(st.integers(0, 60)),
            open=draw(st.booleans()),
            reads=s.phase is Phase.PREFILL and draw(st.booleans()),
            near=s.phase is Phase.PREFILL or draw(st.booleans()),
        )

    return [
        hears(s) if s.phase is not Phase.DECODE and draw(st.booleans()) else s
        for s in draw(stages())
    ]


@given(with_background(), budgets)
def test_the_foreground_gets_what_it_would_get_alone(
    sequences: list[SequenceView], budget: Budget
) -> None:
    foreground = [s for s in sequences if s.lane is Lane.FOREGROUND]
    both, alone = plan(sequences, budget), plan(foreground, budget)
    assert (both.prefill, both.decode) == (alone.prefill, alone.decode)
    assert alone.background is None


@given(with_background(), budgets)
def test_the_background_gets_on_when_and_only_when_the_foreground_has_nothing_to_do(
    sequences: list[SequenceView], budget: Budget
) -> None:
    step = plan(sequences, budget)
    hearing = [
        s
        for s in sequences
        if s.lane is Lane.BACKGROUND
        and s.phase in (Phase.WAITING, Phase.PREFILL)
        and due(s, budget.grid)
    ]
    if step.decode and step.background is not None:
        return  # the one exception, which is the next test's
    assert (step.background is not None) == (
        bool(hearing) and step.prefill is None and not step.decode
    )
    if step.background is not None:
        uid, tokens = step.background
        assert sequences[uid] in hearing
        assert 1 <= tokens <= sequences[uid].remaining
        begun = [s for s in hearing if s.phase is Phase.PREFILL]
        assert not begun or sequences[uid] in begun, "one after the other"


@given(with_background(), budgets)
def test_who_begins_to_follow_catches_up_in_one_chunk_that_a_newcomer_could_have_had(
    sequences: list[SequenceView], budget: Budget
) -> None:
    step = plan(sequences, budget)
    if not step.decode or step.background is None:
        return
    uid, tokens = step.background
    s = sequences[uid]
    assert step.prefill is None
    assert budget.schedule == "adaptive"
    assert s.lane is Lane.BACKGROUND
    assert s.open
    assert not s.reads
    assert uid not in step.read
    assert len(step.read) + len(step.decode) < budget.max_rows, "it takes a row that is free"
    assert GRAIN <= tokens == s.remaining
    assert tokens <= max(GRAIN, chunk(prefilling(10**6, s.context), budget, decoding=True))


@given(st.integers(1, 10_000), st.integers(0, 10_000), budgets)
def test_a_background_chunk_is_bounded_by_its_time(
    remaining: int, context: int, budget: Budget
) -> None:
    tokens = background_chunk(prefilling(remaining, context), budget)
    assert 1 <= tokens <= remaining
    if budget.schedule == "adaptive" and tokens > GRAIN:
        assert budget.cost.seconds(tokens, context) <= budget.max_background_s + 1e-6


@given(with_background(), budgets)
def test_who_hears_reads_along_only_in_rows_that_replies_leave(
    sequences: list[SequenceView], budget: Budget
) -> None:
    step = plan(sequences, budget)
    assert len(step.read) <= max(0, budget.max_rows - len(step.decode))
    assert not step.read or step.decode
    assert not step.read or budget.schedule == "adaptive"
    for uid in step.read:
        assert sequences[uid].lane is Lane.BACKGROUND
        assert sequences[uid].remaining > 0
        assert sequences[uid].open or budget.told_reads
        assert step.num_tokens[uid] == 1


@given(with_background(), budgets)
def test_who_reads_stays_while_there_is_a_row(
    sequences: list[SequenceView], budget: Budget
) -> None:
    """Nobody is sent away for another who hears: joining and leaving cost everybody."""
    step = plan(sequences, budget)
    may_stay = [s for s in sequences if s.open or budget.told_reads]  # others wait for a pause
    readers = {s.uid for s in may_stay if s.reads and s.remaining}
    if step.read and readers - set(step.read):
        assert set(step.read) <= readers


@given(with_background(), budgets)
def test_a_row_is_taken_whenever_it_is_worth_it(
    sequences: list[SequenceView], budget: Budget
) -> None:
    step = plan(sequences, budget)
    longest = max((s.context for s in sequences if s.phase is Phase.DECODE), default=0)
    worth = [
        s
        for s in sequences
        if s.lane is Lane.BACKGROUND
        and s.phase in (Phase.WAITING, Phase.PREFILL)
        and s.near
        and s.remaining
        and (s.open or budget.told_reads)
        and s.context <= longest + SPREAD
        and s.remaining + s.beyond >= (WORTH_FOLLOWING if s.open else WORTH_READING)
    ]
    if step.decode and worth and budget.schedule == "adaptive":
        taken = len(step.read) + (step.background is not None)
        assert taken >= min(len(worth), budget.max_rows - len(step.decode))


@given(st.integers(0, 5000), budgets)
def test_a_fixed_chunk_is_whole_where_more_is_to_come(remaining: int, budget: Budget) -> None:
    view = SequenceView(0, Phase.PREFILL, remaining, 0, lane=Lane.BACKGROUND, open=True)
    background = plan([view], budget).background
    if budget.schedule == "fixed":
        assert (background is None) == (remaining < budget.chunk_tokens)
        assert background is None or background[1] == budget.chunk_tokens
    else:
        assert (background is None) == (remaining == 0)


def served(views: list[SequenceView], budget: Budget, steps: int) -> list[int]:
    """Who gets the chunks of so many steps, if nobody ever comes to an end."""
    order: list[int] = []
    for step in range(steps):
        chunk_ = plan(views, budget).prefill
        assert chunk_ is not None
        order.append(chunk_[0])
        views[chunk_[0]] = structs.replace(views[chunk_[0]], phase=Phase.PREFILL, last_planned=step)
    return order


@given(st.lists(st.sampled_from(["low", "normal", "high"]), min_size=1, max_size=4), budgets)
def test_a_priority_is_a_head_start_and_nobody_starves(
    priorities: list[Priority], budget: Budget
) -> None:
    views = [
        SequenceView(uid, Phase.WAITING, 10_000, uid, -WELCOME, priority=priority)
        for uid, priority in enumerate(priorities)
    ]
    budget = structs.replace(budget, max_batch_size=len(views))
    order = served(views, budget, 200)
    first = [order.index(uid) for uid in range(len(views))]
    assert max(first) <= 3 * WELCOME * len(views), "everybody begins"
    assert [priorities[uid] for uid in sorted(range(len(views)), key=first.__getitem__)] == sorted(
        priorities, key=lambda p: -HEAD_START[p]
    ), "the higher ones first"
    for uid in range(len(views)):
        turns = [at for at, who in enumerate(order) if who == uid]
        gaps = [b - a for a, b in itertools.pairwise(turns)]
        assert max(gaps) <= (max(HEAD_START.values()) - min(HEAD_START.values()) + 2) * len(views)


def test_who_came_much_earlier_begins_first_whatever_the_priority() -> None:
    budget = Budget(1, 64, "adaptive", 0.1, ChunkCost(0.01, 0.001, 0.0), 0.1)
    low = SequenceView(0, Phase.WAITING, 100, 0, priority="low")
    for place in range(1, 40):
        high = SequenceView(1, Phase.WAITING, 100, place, priority="high")
        chosen = plan([low, high], budget).prefill
        assert chosen is not None
        assert chosen[0] == (1 if place < HEAD_START["high"] - HEAD_START["low"] else 0)
