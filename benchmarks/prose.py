"""English technical prose cut into prompts: the Python manual's topics, which every Python has."""

from pydoc_data.topics import topics

from greenroom.runtime.records import ChatMessage
from greenroom.runtime.text import Text

Messages = list[dict[str, str]]


class Prose:
    """Prompts of a wanted length, each of text that none had before."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._prose = "\n\n".join(topics[name] for name in sorted(topics))
        self._at = 0

    def passage(self, length: int) -> str:
        """The next ``length`` tokens of prose, or a few less."""
        ids = self._text.encode(self._prose[self._at : self._at + 8 * length])
        content = self._text.decode(ids[:length])
        self._at += len(content)
        return content

    def question(self, length: int) -> Messages:
        """A user's message that renders to ``length`` tokens, or a few less."""
        overhead = len(self.tokens([{"role": "user", "content": ""}]))
        return [{"role": "user", "content": self.passage(length - overhead)}]

    def tokens(self, messages: Messages) -> list[int]:
        """The prompt's token ids as a server without memory computes them."""
        rendered = self._text.render([ChatMessage(m["role"], m["content"]) for m in messages])  # type: ignore[arg-type]
        return list(self._text.encode(rendered))
