"""What happens next in a scene. Pure: from its transcript to moves, which somebody else makes."""

import re
from collections.abc import Sequence

from greenroom.runtime.ballot import Ballot, announcement, ask_for, read_ranking, tally
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.scenario import Vote
from greenroom.runtime.script import Situation, after, named_in, next_speakers, upcoming
from greenroom.runtime.transcript import (
    Call,
    Cast,
    Counted,
    Cue,
    Ended,
    Entry,
    Line,
    PhaseBegun,
    Poll,
    Silence,
    Transcript,
    said_as,
)

FOLLOWERS = 2
"""Members at most who get ready while another speaks."""


def situation(so_far: Transcript, budget: int | None = None) -> Situation:
    """The phase as the script sees it; ``budget`` more turns may begin, by somebody's wish."""
    scenario, phase = so_far.scenario, so_far.current
    left = so_far.turns_left()
    # Who answers at once is not to hear a part of the others first: a round begins whole.
    if budget is not None and not (phase.order == "broadcast" and budget > 0):
        left = budget if left is None else min(left, budget)
    return Situation(
        order=phase.order,
        circle=scenario.names,
        cast=scenario.cast(phase),
        speakers=phase.speakers or (),
        spoken=tuple(so_far.spoken),
        num_in_phase=so_far.num_in_phase,
        speaking=so_far.speaking(),
        left=left,
        at_once=scenario.at_once,
        called=so_far.called,
        mentioned=next((x.text for x in reversed(so_far.lines) if x.to is None and x.speaker), ""),
    )


def next_entries(so_far: Transcript, budget: int | None = None) -> list[Entry]:
    """What is to be entered now, together: [] while there is nothing to do but wait.

    When no cue is open either, the scene rests: it is over, or ``budget`` is used up.
    """
    for poll in so_far.open_polls.values():  # one may be held when all is over, too
        return _poll_on(so_far, poll)
    if so_far.ended is not None:
        return []
    if so_far.phase < 0:
        return _begin(so_far, 0)
    if so_far.stopped is not None or so_far.turns_left() == 0:
        return [] if so_far.open_cues else _move_on(so_far)
    now = situation(so_far, budget)
    speakers = next_speakers(now)
    if not speakers and now.order == "moderated" and now.left != 0 and not so_far.open_cues:
        return [_call(so_far, now)]
    first = so_far.next_number
    return [_cue(so_far, name, first + n, first) for n, name in enumerate(speakers)]


def who_is_next(so_far: Transcript) -> str | None:
    """Who speaks after those who speak now, where that is known."""
    return None if so_far.ended or so_far.open_polls else upcoming(situation(so_far))


def listeners(so_far: Transcript, cue: Cue) -> list[str]:
    """Who gets ready to hear what is said under a cue, whoever speaks next first.

    Two at most, since each takes the memory of a sequence on stage; nobody while several speak,
    whose lines come in an order that is not known yet.
    """
    if cue.purpose != "speak" or len(so_far.open_cues) != 1:
        return []
    names = so_far.scenario.names
    at = names.index(cue.speaker)
    heard = [n for n in (*names[at + 1 :], *names[:at]) if cue.to is None or n in cue.to]
    following = who_is_next(so_far)
    return sorted(heard, key=lambda name: name != following)[:FOLLOWERS]


def heard_so_far(cue: Cue, said: str) -> ChatMessage | None:
    """What of an answer that is not complete is heard for sure: whole words, as the line will have
    them. None while there are none."""
    *whole, _ = re.split(r"\s+(?=\S*$)", said, maxsplit=1)
    text = spoken_text("".join(whole), cue.speaker)
    if not text:
        return None
    line = Line(number=cue.number, phase=cue.phase, text=text, speaker=cue.speaker, to=cue.to)
    return ChatMessage("user", text, said_as(line), heard=True)


def cue_for(so_far: Transcript, name: str) -> list[Entry]:
    """Cue one member out of turn. Raises InvalidRequest (``member``)."""
    name = so_far.scenario.member(name).name
    return [_cue(so_far, name, so_far.next_number, so_far.next_number)]


def hold(so_far: Transcript, vote: Vote, *, scripted: bool = False) -> Poll:
    """Begin a vote."""
    return Poll(
        number=so_far.next_number,
        phase=max(0, so_far.phase),
        vote=vote,
        voters=vote.voters if vote.voters is not None else so_far.scenario.names,
        scripted=scripted,
    )


def ending(so_far: Transcript, cue: Cue, answer: str | None, reason: str = "") -> Entry:
    """The entry that ends a cue: ``answer`` is the member's, None if there is none."""
    number, phase = so_far.next_number, cue.phase
    match cue.purpose:
        case "speak":
            text = spoken_text(answer or "", cue.speaker)
            if text:
                return Line(
                    number=number,
                    phase=phase,
                    text=text,
                    speaker=cue.speaker,
                    to=cue.to,
                    cue=cue.number,
                )
            reason = reason or "said_nothing"
            return Silence(
                number=number, phase=phase, cue=cue.number, speaker=cue.speaker, reason=reason
            )
        case "call":
            now = situation(so_far)
            called = next(iter(named_in(answer or "", now.cast)), None)
            fallback = after(now.spoken[-1] if now.spoken else None, now.circle, now.cast)
            return Call(
                number=number,
                phase=phase,
                cue=cue.number,
                called=called or fallback,
                text=answer,
                understood=called is not None,
            )
        case "vote":
            assert cue.poll is not None
            vote = so_far.open_polls[cue.poll].vote
            ranking = read_ranking(answer or "", vote.options, vote.method)
            ballot = Ballot(cue.speaker, answer, ranking)
            return Cast(number=number, phase=phase, cue=cue.number, poll=cue.poll, ballot=ballot)


def spoken_text(answer: str, speaker: str) -> str:
    """An answer as the others hear it: a small model likes to begin with its own name."""
    text = answer.strip()
    name = re.escape(speaker)
    own = re.match(rf"(?:{name}:|\*\*{name}(?:\*\*:|:\*\*))", text, re.IGNORECASE)
    return text[own.end() :].strip() if own else text


def _begin(so_far: Transcript, index: int) -> list[Entry]:
    phase = so_far.scenario.script[index]
    entries: list[Entry] = [PhaseBegun(number=so_far.next_number, phase=index)]
    told = [(phase.opening, None), *((text, (name,)) for name, text in phase.whispers.items())]
    for text, to in told:
        if text.strip():
            number = so_far.next_number + len(entries)
            entries.append(Line(number=number, phase=index, text=text.strip(), to=to))
    return entries


def _move_on(so_far: Transcript) -> list[Entry]:
    """The phase's turns are over: its vote, the next phase, or the end."""
    place = {"number": so_far.next_number, "phase": so_far.phase}
    if so_far.stopped == "scene":
        return [Ended(**place, reason="stop_word")]
    vote = so_far.current.vote
    if vote is not None and not so_far.polled:
        return [hold(so_far, vote, scripted=True)]
    scenario = so_far.scenario
    if scenario.max_turns is not None and len(so_far.spoken) >= scenario.max_turns:
        return [Ended(**place, reason="max_turns")]
    if so_far.phase + 1 < len(scenario.script):
        return _begin(so_far, so_far.phase + 1)
    return [Ended(**place, reason="stop_word" if so_far.stopped else "finished")]


def _cue(so_far: Transcript, name: str, number: int, horizon: int) -> Cue:
    phase = so_far.current
    text = phase.cue
    member = so_far.scenario.member(name)
    if not text and not so_far.unheard(member, horizon, so_far.phase):
        text = "Go on." if name in so_far.spoken else "You begin."
    return Cue(
        number=number,
        phase=max(0, so_far.phase),
        speaker=name,
        horizon=horizon,
        text=text,
        to=phase.audience,
    )


def _call(so_far: Transcript, now: Situation) -> Cue:
    moderator = so_far.current.moderator
    assert moderator is not None
    return Cue(
        number=so_far.next_number,
        phase=so_far.phase,
        speaker=moderator,
        horizon=so_far.next_number,
        purpose="call",
        text=f"Who speaks next? Answer with one name: {', '.join(now.cast)}.",
    )


def _poll_on(so_far: Transcript, poll: Poll) -> list[Entry]:
    """Ask who has not been asked; once all have answered, count."""
    ballots = so_far.ballots(poll.number)
    asked = [b.voter for b in ballots]
    asked += [c.speaker for c in so_far.open_cues.values() if c.poll == poll.number]
    first = so_far.next_number
    missing = [name for name in poll.voters if name not in asked]
    if missing:
        return [_ask(so_far, poll, name, first + n) for n, name in enumerate(missing)]
    if len(ballots) < len(poll.voters):
        return []
    result = tally(poll.vote, _in_order(ballots, poll.voters))
    phase = poll.phase
    return [
        Counted(number=first, phase=phase, poll=poll.number, tally=result),
        Line(number=first + 1, phase=phase, text=announcement(result)),
    ]


def _ask(so_far: Transcript, poll: Poll, name: str, number: int) -> Cue:
    return Cue(
        number=number,
        phase=poll.phase,
        speaker=name,
        horizon=poll.number,
        purpose="vote",
        text=ask_for(poll.vote),
        poll=poll.number,
    )


def _in_order(ballots: Sequence[Ballot], voters: Sequence[str]) -> list[Ballot]:
    return sorted(ballots, key=lambda ballot: voters.index(ballot.voter))
