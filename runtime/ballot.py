"""Votes: what a free answer chooses, and what the ballots add up to. Pure.

"majority" counts first choices. "ranked" is a Borda count: of ``n`` options a ballot gives its
first ``n - 1`` points, the next one less, and nothing to those it leaves out. What ties is decided
by the order in which the options are listed, and said to be a tie.
"""

import re
from collections.abc import Sequence

import msgspec

from greenroom.runtime.scenario import Method, Vote


class Ballot(msgspec.Struct, frozen=True):
    """What one voter answered, word for word (``text`` None: nothing), and what it comes to.

    ``ranking`` are options, the best first; one that has none is invalid, and kept.
    """

    voter: str
    text: str | None
    ranking: tuple[str, ...]


class Tally(msgspec.Struct, frozen=True):
    """How a vote ended. ``points`` of each option, as listed; ``winner`` None if nobody chose.

    ``num_valid + num_invalid + num_absent`` are all voters. ``tied`` are the options that share
    the most points, if there are several; the winner is the first of them. ``decided`` tells for
    "majority" whether the winner has more than half of the valid ballots, for "ranked" whether
    nobody shares its points.
    """

    question: str
    method: Method
    points: dict[str, int]
    winner: str | None
    tied: tuple[str, ...]
    decided: bool
    num_valid: int
    num_invalid: int
    num_absent: int


def ask_for(vote: Vote) -> str:
    """The question as it is put to a voter."""
    options = ", ".join(vote.options)
    if vote.method == "ranked":
        return (
            f"{vote.question} The options are: {options}. Answer only with the options, the best "
            "first, separated by commas."
        )
    return f"{vote.question} The options are: {options}. Answer only with one option."


def read_ranking(text: str, options: Sequence[str], method: Method) -> tuple[str, ...]:
    """The options that an answer names, in its order and each once; () if it names none.

    Case, spaces and whatever surrounds an option do not matter. Of an option within another
    ("red" in "dark red") only the longer one counts where both begin. A bare number is a place in
    the list, where no option has digits of its own. A majority ballot chooses the first that it
    names; one that rejects ("not red") names it all the same.
    """
    plain = " ".join(text.casefold().split())
    keys = {" ".join(o.casefold().split()): o for o in options}
    longest_first = sorted(keys, key=len, reverse=True)
    pattern = "|".join(re.escape(key) for key in longest_first)
    named = [keys[m[0]] for m in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", plain)]
    if not named and not any(c.isdigit() for key in keys for c in key):
        numbers = [int(n) for n in re.findall(r"(?<![\w.])\d{1,3}(?!\w)", plain)]
        named = [options[n - 1] for n in numbers if 1 <= n <= len(options)]
    ranking = tuple(dict.fromkeys(named))
    return ranking[:1] if method == "majority" else ranking


def tally(vote: Vote, ballots: Sequence[Ballot]) -> Tally:
    """Add up ballots, one for each voter."""
    points = dict.fromkeys(vote.options, 0)
    valid = [b for b in ballots if b.ranking]
    for ballot in valid:
        for place, option in enumerate(ballot.ranking):
            points[option] += 1 if vote.method == "majority" else len(vote.options) - 1 - place
    most = max(points.values()) if valid else 0
    leading = tuple(o for o in vote.options if valid and points[o] == most)
    decided = 2 * most > len(valid) if vote.method == "majority" else len(leading) == 1
    return Tally(
        question=vote.question,
        method=vote.method,
        points=points,
        winner=leading[0] if leading else None,
        tied=leading if len(leading) > 1 else (),
        decided=bool(valid) and decided,
        num_valid=len(valid),
        num_invalid=sum(1 for b in ballots if not b.ranking and b.text is not None),
        num_absent=sum(1 for b in ballots if b.text is None),
    )


def announcement(result: Tally) -> str:
    """The result in a sentence or two, as everybody is told."""
    counted = ", ".join(f"{option} {points}" for option, points in result.points.items())
    if result.winner is None:
        return f"The vote on {result.question!r} chose nothing: there is no valid ballot."
    ending = f"{result.winner} wins"
    if result.tied:
        ending += f" a tie of {' and '.join(result.tied)}, as the first of them"
    return f"The vote on {result.question!r}: {counted}. {ending}."
