"""Prompts for measurements: English technical prose, which every Python carries, cut to length."""

from pathlib import Path
from pydoc_data.topics import topics

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.download import ensure_model
from greenroom.runtime.layers import load_settings
from greenroom.runtime.records import ChatMessage
from greenroom.runtime.text import Text

# isort: split
from mlx_lm.utils import load_tokenizer

Messages = list[dict[str, str]]


def default_model() -> Path:
    """The folder of the default model, fetched if it is not there yet."""
    return ensure_model(load_catalog().default("cpu"), load_settings().settings.models_path)


class Prose:
    """Gives each prompt text that no prompt had before, so that none is remembered by chance."""

    def __init__(self, model: Path) -> None:
        self.text = Text(load_tokenizer(model))
        self._prose = "\n\n".join(topics[name] for name in sorted(topics))
        self._at = 0

    def turn_to(self, at: int) -> None:
        """Go on from this character of the prose, which gives the same prompts each time."""
        self._at = at % len(self._prose)

    def question(self, length: int, ask: str = "") -> Messages:
        """A prompt of ``length`` tokens or a few less that ends in ``ask``."""
        # A system prompt of its own: the template's would be remembered from the prompt before.
        system = {"role": "system", "content": f"This is conversation {self._at}."}
        overhead = len(self.tokens([system, {"role": "user", "content": ask}]))
        content = self.passage(length - overhead)
        return [system, {"role": "user", "content": content + ask}]

    def passage(self, length: int) -> str:
        """The next ``length`` tokens of prose, or a few less."""
        rest = (self._prose + self._prose)[self._at : self._at + 8 * length]
        content = self.text.decode(self.text.encode(rest)[:length])
        self.turn_to(self._at + len(content))
        return content

    def tokens(self, messages: Messages) -> list[int]:
        """The prompt's token ids as a server without memory computes them."""
        rendered = self.text.render([ChatMessage(m["role"], m["content"]) for m in messages])  # type: ignore[arg-type]
        return list(self.text.encode(rendered))
