"""What is said in a scene from outside: by its narrator, or by a guest who is no member."""

import asyncio
from unicodedata import normalize

import msgspec

from greenroom.actors.scene_messages import Tell
from greenroom.runtime.errors import InvalidRequest, Unavailable
from greenroom.runtime.names import MAX_NAME_LENGTH
from greenroom.runtime.scenario import Scenario
from greenroom.runtime.transcript import Line, Transcript

MAX_TEXT = 65_536
"""Characters of a line from outside. One that outgrows a member's context window silences it."""


class Interjection(msgspec.Struct, frozen=True):
    """Something to be said while a scene is performed, as soon as it can be written down."""

    told: Tell
    line: "asyncio.Future[Line]"

    def succeed(self, line: Line) -> None:
        """It has been said, unless nobody waits for that any more."""
        if not self.line.done():
            self.line.set_result(line)

    def fail(self, error: BaseException) -> None:
        """It could not be said."""
        if self.line.done():
            return
        if isinstance(error, asyncio.CancelledError):
            error = Unavailable("the scene has stopped; say it again")
        self.line.set_exception(error)


def line_of(transcript: Transcript, told: Tell) -> Line:
    """What is told from outside, as the next line. Raises InvalidRequest."""
    scenario = transcript.scenario
    text = told.text.strip()
    if not text:
        raise InvalidRequest("there is nothing to say", param="text", code="empty_string")
    if len(text) > MAX_TEXT:
        raise InvalidRequest(
            f"a line has at most {MAX_TEXT} characters, not {len(text)}",
            param="text",
            code="string_above_max_length",
        )
    speaker = None if told.speaker is None else _guest(scenario, told.speaker)
    # As the members spell their names; raises for whoever is none.
    to = None if told.to is None else tuple(scenario.member(name).name for name in told.to)
    if to is not None and not to:
        raise InvalidRequest("nobody would hear it", param="to", code="empty_array")
    return Line(
        number=transcript.next_number,
        phase=max(0, transcript.phase),
        text=text,
        speaker=speaker,
        to=to,
    )


def _guest(scenario: Scenario, name: str) -> str:
    """A name that members will see before the words, and that is no member's."""
    name = normalize("NFC", name.strip())
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(
            f"a guest's name is 1 to {MAX_NAME_LENGTH} printable characters",
            param="speaker",
            code="invalid_name",
        )
    if name.casefold() in (member.casefold() for member in scenario.names):
        raise InvalidRequest(
            f"{name} is a member and speaks for itself", param="speaker", code="is_member"
        )
    return name
