"""A neutral OpenAI client of whatever server: what the scenarios of the comparison are made of."""

from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.contenders import Running, Unavailable
from benchmarks.prose import Messages, Prose
from benchmarks.serving import Answer, Watch, ask

Figures = Mapping[str, Sequence[float]]
"""What was measured, by name; several of a kind where it was measured several times."""
FOLLOW_UP = "Say the most important of it once more, in other words."


class Scale(msgspec.Struct, frozen=True):
    """How large scenarios are played: as they are meant, or ``quick`` to see that they work."""

    quick: bool = False

    def tokens(self, num: int) -> int:
        """So many tokens of a prompt."""
        return max(64, num // 8) if self.quick else num

    def count(self, num: int) -> int:
        """So many of something; at least two."""
        return max(2, num // 8) if self.quick else num


class Chat:
    """One conversation of a client that re-sends its whole history, as most do."""

    def __init__(self, server: Running, messages: Messages) -> None:
        self._server = server
        self.messages = messages

    def ask(self, question: str | None = None, max_tokens: int = 8) -> Answer:
        """Send the history, with a further question if there is one; the answer becomes part."""
        if question is not None:
            self.messages.append({"role": "user", "content": question})
        answer = say(self._server, self.messages, max_tokens)
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer

    def again(self) -> Answer:
        """Send the last request once more, exactly."""
        return say(self._server, self.messages[:-1])


def say(
    server: Running, messages: Messages, max_tokens: int = 8, watch: Watch = lambda _: True
) -> Answer:
    """One greedy streamed answer. Raises Unavailable if there is no text in it."""
    answer = ask(server.url, None, messages, max_tokens, watch, model=server.model_id)
    if not answer.arrivals:
        raise Unavailable("an answer without text")
    return answer


def warm_up(server: Running, prose: Prose) -> None:
    """What is loaded or compiled at the first turn is nobody's figure."""
    say(server, prose.question(64))


def briefed(system: str, question: str) -> Messages:
    """A conversation that begins with a system prompt of its own."""
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]
