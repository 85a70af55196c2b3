"""Who speaks next. Pure: a function of who has spoken and who is speaking.

turn_by_turn    the phase's list of speakers from its start, over and over
round_robin     around the circle of members, going on in a new phase where the last one stopped
broadcast       the whole cast at once; none hears what the others say until all have spoken
moderated       whom the moderator has called
free            up to ``at_once`` together: whoever was mentioned last, else whoever has spoken
                least and been silent longest; nobody gets more than two turns ahead of anybody
"""

import re
from collections import Counter
from collections.abc import Sequence
from unicodedata import normalize

import msgspec

from greenroom.runtime.scenario import Order

MAX_LEAD = 2
"""In free order: by how many turns one member may be ahead of another."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a phase stands.

    ``circle`` are all members and ``cast`` those of the phase, both as listed; ``spoken`` whose
    turns the scene has had, in order, of which the last ``num_in_phase`` are the phase's.
    ``speaking`` have a turn now; ``left`` more may begin (None: no limit). ``called`` is whom the
    moderator has called, ``mentioned`` is the text of the newest line.
    """

    order: Order
    circle: tuple[str, ...]
    cast: tuple[str, ...]
    speakers: tuple[str, ...] = ()
    spoken: tuple[str, ...] = ()
    num_in_phase: int = 0
    speaking: tuple[str, ...] = ()
    left: int | None = None
    at_once: int = 2
    called: str | None = None
    mentioned: str = ""


def next_speakers(now: Situation) -> tuple[str, ...]:
    """Whose turns begin now, in order: () while it is somebody else's, or when none are left.

    In moderated order () also means that the moderator has yet to call somebody.
    """
    if now.left == 0 or (now.speaking and now.order != "free"):
        return ()
    match now.order:
        case "turn_by_turn":
            script = now.speakers or now.cast
            chosen: Sequence[str] = (script[now.num_in_phase % len(script)],)
        case "round_robin":
            chosen = (after(now.spoken[-1] if now.spoken else None, now.circle, now.cast),)
        case "broadcast":
            chosen = now.cast
        case "moderated":
            chosen = () if now.called is None else (now.called,)
        case "free":
            chosen = _volunteers(now)
    return tuple(chosen[: now.left])


def after(last: str | None, circle: Sequence[str], cast: Sequence[str]) -> str:
    """The next of the cast around the circle after ``last``, who need not be in it any more."""
    at = circle.index(last) if last in circle else -1
    around = [*circle[at + 1 :], *circle[: at + 1]]
    return next(name for name in around if name in cast)


def is_certain(now: Situation) -> bool:
    """Whether who comes next depends on nothing that is still to be said."""
    return now.order in ("turn_by_turn", "round_robin")


def upcoming(now: Situation) -> str | None:
    """Who speaks once those who are speaking have ended, where that is known."""
    if not is_certain(now) or now.left == 0:
        return None
    ended = msgspec.structs.replace(
        now,
        spoken=(*now.spoken, *now.speaking),
        num_in_phase=now.num_in_phase + len(now.speaking),
        speaking=(),
    )
    return next(iter(next_speakers(ended)), None)


def named_in(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names that a text mentions as whole words, the first first, each once."""
    by_fold = {name.casefold(): name for name in names}
    pattern = "|".join(re.escape(n) for n in sorted(by_fold, key=len, reverse=True))
    if not pattern:
        return ()
    plain = normalize("NFC", text).casefold()
    found = re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", plain)
    return tuple(dict.fromkeys(by_fold[m[0]] for m in found))


def _volunteers(now: Situation) -> list[str]:
    """Members for the free places, one after another."""
    speaking = list(now.speaking)
    chosen: list[str] = []
    in_phase = [*now.spoken[len(now.spoken) - now.num_in_phase :], *speaking]
    mentioned = named_in(now.mentioned, now.cast)
    while len(speaking) < now.at_once:
        turns = Counter(in_phase)
        fewest = min(turns[name] for name in now.cast)
        ready = [
            name for name in now.cast if name not in speaking and turns[name] < fewest + MAX_LEAD
        ]
        # Nobody goes on alone while somebody else may.
        ready = [name for name in ready if in_phase[-1:] != [name]] or ready
        if not ready:
            break
        called = next((name for name in mentioned if name in ready), None)
        name = called or min(ready, key=lambda each: (turns[each], _last(in_phase, each)))
        mentioned = tuple(m for m in mentioned if m != name)
        chosen.append(name)
        speaking.append(name)
        in_phase.append(name)
    return chosen


def _last(spoken: Sequence[str], name: str) -> int:
    """The place of a member's last turn; -1 for one who has had none."""
    return len(spoken) - 1 - spoken[::-1].index(name) if name in spoken else -1
