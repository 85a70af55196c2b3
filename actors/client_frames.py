"""What clients send over the WebSocket, read and checked."""

from typing import Literal

import msgspec

from greenroom.actors.fields import at_least, decode, decode_known
from greenroom.actors.identity import named
from greenroom.actors.saying import Saying, checked_key, read_saying
from greenroom.runtime.agent_records import HearRequest
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.records import TurnRequest

MAX_ID_LENGTH = 128


class SayFrame(Saying):
    """The client speaks to the agent."""

    type: Literal["say"] = "say"
    id: str | None = None
    agent: str | None = None


class HearFrame(msgspec.Struct):
    """The client tells the agent something that it need not answer; ``name`` is whose words."""

    type: Literal["hear"] = "hear"
    id: str | None = None
    agent: str | None = None
    content: str | None = None
    name: str | None = None
    key: str | None = None


class CancelFrame(msgspec.Struct):
    """The client gives up the turn ``id``, or the running ones and all that wait behind them."""

    type: Literal["cancel"] = "cancel"
    id: str | None = None
    agent: str | None = None


class ResumeFrame(msgspec.Struct):
    """The client takes up a turn that an earlier socket began, from what it has not seen of it.

    ``index`` is the number of tokens that it has seen; ``after`` is the ``seq`` of the last frame.
    """

    type: Literal["resume"] = "resume"
    id: str | None = None
    agent: str | None = None
    index: int | None = None
    after: int | None = None


class PingFrame(msgspec.Struct):
    """The client wants to know whether anybody is there; browsers cannot send the other kind."""

    type: Literal["ping"] = "ping"
    id: str | None = None


class Say(msgspec.Struct, frozen=True):
    """A valid ``say``: the turn and the id that its frames carry."""

    id: str | None
    agent: str
    turn: TurnRequest
    progress: bool = False


class Tell(msgspec.Struct, frozen=True):
    """A valid ``hear``."""

    id: str | None
    agent: str
    told: HearRequest


class Cancel(msgspec.Struct, frozen=True):
    """A valid ``cancel``; an ``agent`` of None means whichever."""

    id: str | None
    agent: str | None


class Resume(msgspec.Struct, frozen=True):
    """A valid ``resume``, of everything when neither is given."""

    id: str
    agent: str
    index: int | None
    after: int | None


class Ping(msgspec.Struct, frozen=True):
    """A valid ``ping``."""

    id: str | None


ClientFrame = Say | Tell | Cancel | Resume | Ping


class _Kind(msgspec.Struct):
    type: str = ""
    id: str | None = None


class BadFrame(InvalidRequest):
    """A client's frame cannot be served; ``frame_id`` is its id where one could be read."""

    def __init__(self, cause: InvalidRequest, frame_id: str | None) -> None:
        super().__init__(str(cause), param=cause.param, code=cause.code)
        self.frame_id = frame_id


class FrameReader:
    """Reads the frames of one socket: of one ``agent``, or of the one that each frame names."""

    def __init__(self, *, agent: str | None, namespace: str) -> None:
        self._agent = agent
        self._namespace = namespace

    def read(self, text: str | bytes) -> ClientFrame:
        """The client's frame. Raises ``BadFrame`` that names the field at fault."""
        frame_id: str | None = None
        try:
            kind = decode(text, _Kind)
            frame_id = _checked_id(kind.id)
            return self._read(kind.type, text)
        except InvalidRequest as error:
            raise BadFrame(error, frame_id) from None

    def _read(self, kind: str, text: str | bytes) -> ClientFrame:
        match kind:
            case "say":
                return self._say(decode_known(text, SayFrame))
            case "hear":
                return self._hear(decode_known(text, HearFrame))
            case "cancel":
                return self._cancel(decode_known(text, CancelFrame))
            case "resume":
                return self._resume(decode_known(text, ResumeFrame))
            case "ping":
                return Ping(decode_known(text, PingFrame).id)
            case _:
                raise InvalidRequest(
                    f"type must be say, hear, cancel, resume or ping, not {kind!r}.",
                    param="type",
                    code="invalid_value",
                )

    def _say(self, frame: SayFrame) -> Say:
        agent = self._named(frame.agent)
        turn = read_saying(frame, agent=agent, namespace=self._namespace)
        return Say(frame.id, agent, turn, frame.progress)

    def _hear(self, frame: HearFrame) -> Tell:
        if frame.content is None:
            raise _missing("content")
        agent = self._named(frame.agent)
        told = HearRequest(
            agent=agent,
            content=frame.content,
            name=frame.name,
            namespace=self._namespace,
            key=checked_key(frame.key),
        )
        return Tell(frame.id, agent, told)

    def _cancel(self, frame: CancelFrame) -> Cancel:
        # On a socket of several agents, no agent means all of them.
        whose = self._agent if frame.agent is None else self._named(frame.agent)
        return Cancel(frame.id, whose)

    def _resume(self, frame: ResumeFrame) -> Resume:
        if frame.id is None:
            raise _missing("id")
        if frame.index is not None and frame.after is not None:
            raise InvalidRequest(
                "index and after exclude each other.", param="after", code="invalid_value"
            )
        at_least("index", frame.index, 0)
        at_least("after", frame.after, 0)
        return Resume(frame.id, self._named(frame.agent), frame.index, frame.after)

    def _named(self, given: str | None) -> str:
        """The agent meant: the socket's own, else the frame's."""
        if given is None:
            if self._agent is None:
                raise _missing("agent")
            return self._agent
        agent = named(given, "agent")
        if self._agent not in (None, agent):
            raise InvalidRequest(
                f"This socket speaks to {self._agent} only; /v1/stream takes any agent.",
                param="agent",
                code="invalid_value",
            )
        return agent


def _missing(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is missing.", param=field, code="missing_value")


def _checked_id(frame_id: str | None) -> str | None:
    if frame_id is not None and len(frame_id) > MAX_ID_LENGTH:
        raise InvalidRequest(
            f"id has at most {MAX_ID_LENGTH} characters.", param="id", code="out_of_range"
        )
    return frame_id
