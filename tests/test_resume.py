"""Where a chain can be taken up again: against the definition, position by position."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from greenroom.runtime.resume import Link, resume_at, stand_at


@st.composite
def chains(draw: st.DrawFn) -> tuple[list[Link], list[int]]:
    """Links as segments make them: a tail is the newest rows, or fewer where they were lost."""
    windows = draw(st.lists(st.integers(1, 9), max_size=2, unique=True))
    links = []
    for _ in range(draw(st.integers(0, 5))):
        size = draw(st.integers(1, 12))
        links.append(
            Link(
                num_tokens=size,
                used=draw(st.sampled_from([size, draw(st.integers(1, size))])),
                tails={
                    w: draw(st.sampled_from([min(w, size), 0, min(w, size) // 2])) for w in windows
                },
                states=tuple(draw(st.sets(st.integers(1, size), max_size=3))),
            )
        )
    return links, windows


def possible(links: Sequence[Link], windows: Sequence[int], stateful: bool, at: int) -> bool:
    """By definition: every row that the token at ``at`` sees is stored, and so is the state."""
    stored: dict[int, set[int]] = {w: set() for w in windows}
    states = {0}
    start = 0
    for link in links:
        for w in windows:
            low = start + link.num_tokens - link.tails[w]
            stored[w] |= set(range(low, start + link.used))
        states |= {start + n for n in link.states if n <= link.used}
        start += link.used
    seen = all(set(range(max(0, at - w + 1), at)) <= stored[w] for w in windows)
    return seen and (not stateful or at in states)


@given(chains(), st.booleans(), st.integers(0, 70))
def test_it_is_the_deepest_position_from_which_all_is_there(
    chain: tuple[list[Link], list[int]], stateful: bool, limit: int
) -> None:
    links, windows = chain
    end = sum(link.used for link in links)
    wanted = max(p for p in range(min(end, limit) + 1) if possible(links, windows, stateful, p))
    assert resume_at(links, windows, stateful=stateful, limit=limit) == wanted


@given(chains())
def test_full_attention_is_taken_up_anywhere_and_everything_at_nothing(
    chain: tuple[list[Link], list[int]],
) -> None:
    links, windows = chain
    end = sum(link.used for link in links)
    assert resume_at(links, (), stateful=False, limit=end) == end
    assert resume_at(links, windows, stateful=True, limit=0) == 0


@given(chains())
def test_where_one_stands_the_windows_reach_back(chain: tuple[list[Link], list[int]]) -> None:
    links, windows = chain
    stand = stand_at(links, windows)
    assert possible(links, windows, False, stand)
    assert resume_at(links, windows, stateful=True, limit=stand) <= stand


def test_a_prompt_sent_again_is_taken_up_one_token_early() -> None:
    prompt = Link(30, 30, {8: 8}, (29,))
    assert resume_at([prompt], [8], stateful=True, limit=29) == 29
    assert resume_at([prompt], [8], stateful=True, limit=28) == 0
    assert stand_at([prompt], [8]) == 30
