"""A turn's events as the frames that clients of WebSockets and of ``say`` read."""

from greenroom.actors.frames import Done, Progress, Started, Token, ToolFrame, TurnFrame, UsageFrame
from greenroom.runtime.records import TextDelta, TurnDone, TurnEvent, TurnProgress, TurnStarted


class Teller:
    """Numbers the frames of one turn. ``progress``: the client wants to see the prompt being read.

    ``turn_id`` is the client's own name for the turn.
    """

    def __init__(self, turn_id: str | None, agent: str, *, progress: bool) -> None:
        self._id = turn_id
        self._agent = agent
        self._progress = progress
        self._seq = 0
        self._index = 0

    def tell(self, event: TurnEvent) -> tuple[TurnFrame, ...]:
        """The frames of one event."""
        match event:
            case TurnStarted():
                frame = Started(
                    self._id,
                    self._agent,
                    event.prompt_tokens,
                    event.cached_tokens,
                    self._number(),
                )
                return (frame,)
            case TurnProgress(prompt_tokens, done_tokens):
                if not self._progress:
                    return ()
                seq = self._number()
                return (Progress(self._id, self._agent, prompt_tokens, done_tokens, seq),)
            case TextDelta():
                return self._text(event)
            case TurnDone():
                return (
                    UsageFrame(self._id, self._agent, event.usage, self._number()),
                    self._done(event),
                )

    def _text(self, said: TextDelta) -> tuple[TurnFrame, ...]:
        index, self._index = self._index, self._index + len(said.tokens)
        token = Token(
            self._id,
            self._agent,
            said.text,
            said.reasoning,
            said.tokens,
            index,
            self._number(),
        )
        if not said.tool_calls:
            return (token,)
        return token, ToolFrame(self._id, self._agent, said.tool_calls, self._number())

    def _done(self, done: TurnDone) -> Done:
        return Done(
            id=self._id,
            agent=self._agent,
            text=done.text,
            finish_reason=done.finish_reason,
            usage=done.usage,
            timings=done.timings,
            head=done.head,
            reasoning=done.reasoning,
            tool_calls=done.tool_calls,
            notices=done.notices,
            seq=self._number(),
        )

    def _number(self) -> int:
        self._seq += 1
        return self._seq - 1
