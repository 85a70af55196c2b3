"""Where a sequence can be taken up again, by what its segments hold. Pure.

Full attention can be cut anywhere. A sliding window can be taken up at a position when the rows
before it are still stored; a state only where it was kept.
"""

from collections.abc import Mapping, Sequence

import msgspec


class Link(msgspec.Struct, frozen=True):
    """What one segment of a chain holds, of which the chain uses the first ``used`` tokens.

    ``tails`` gives for each window length how many of the segment's newest rows are stored.
    ``states`` are the positions at which its states were kept, in tokens from its start. At its end
    a prompt was ``answered``: what the answer was sampled from is kept.
    """

    num_tokens: int
    used: int
    tails: Mapping[int, int]
    states: tuple[int, ...]
    answered: bool = False


def resume_at(links: Sequence[Link], windows: Sequence[int], *, stateful: bool, limit: int) -> int:
    """The deepest position up to ``limit`` where every layer's cache can be restored; maybe 0.

    ``limit`` beyond the chain means its end.
    """
    end = sum(link.used for link in links)
    for link in reversed(links):
        start = end - link.used
        if stateful:
            deep = [start + n for n in sorted(link.states, reverse=True) if 0 < n <= link.used]
        else:
            deep = [min(end, limit)] if start < limit else []
        for position in deep:
            if position <= limit and all(_covered(links, w, position) for w in windows):
                return position
        end = start
    return 0


def prompt_limit(links: Sequence[Link], num_tokens: int) -> int:
    """The deepest position at which a prompt may be taken up, as a limit for ``resume_at``.

    One that has been answered: its end. Of any other at least the last token must be computed,
    since the answer is sampled from what comes of it.
    """
    whole = sum(link.used for link in links) == num_tokens
    ends = whole and links[-1].answered and links[-1].used == links[-1].num_tokens
    return num_tokens if ends else num_tokens - 1


def stand_at(links: Sequence[Link], windows: Sequence[int]) -> int:
    """How much of a chain a new segment may follow: up to where its windows can be restored.

    States do not matter here: they are kept anew in the segment that follows. A window's rows
    would stay missing until the sequence has gone on for a whole window.
    """
    return resume_at(links, windows, stateful=False, limit=sum(link.used for link in links))


def _covered(links: Sequence[Link], window: int, position: int) -> bool:
    """Whether the ``window - 1`` rows before ``position`` are stored: the next token sees them,
    and itself."""
    oldest = max(0, position - window + 1)
    start = 0
    for link in links:
        if start >= position:
            break
        stored = start + link.num_tokens - link.tails[window]
        end = min(start + link.used, position)
        if end > oldest and stored > max(start, oldest):
            return False
        start += link.used
    return True
