"""What is said in a scene from outside: by its narrator, or by a guest who is no member."""

import asyncio

import msgspec

from greenroom.actors.scene_messages import Tell
from greenroom.runtime.errors import InvalidRequest, Unavailable
from greenroom.runtime.transcript import Line, Transcript


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
    if told.speaker in scenario.names:
        raise InvalidRequest(
            f"{told.speaker} is a member and speaks for itself", param="speaker", code="is_member"
        )
    for name in told.to or ():
        scenario.member(name)
    return Line(
        number=transcript.next_number,
        phase=max(0, transcript.phase),
        text=text,
        speaker=told.speaker,
        to=told.to,
    )
