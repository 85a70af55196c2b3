"""What clients write into a system prompt that is not meant for the model and changes every time.

At the very beginning of every prompt, one changed line costs all that comes after it. Such lines
are left out: the model does not see them, and one agent's prompt is that of the next. Pure.
"""

import re
from collections.abc import Sequence

import msgspec

from greenroom.runtime.errors import SettingsError
from greenroom.runtime.records import ChatMessage


class Volatile:
    """The ``patterns`` (regular expressions, as in Python's ``re``) of what is left out.

    Raises SettingsError for one that cannot be read.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_compiled(pattern) for pattern in patterns]

    def left_out(self, messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
        """The messages without it; a system message that was nothing else is no message."""
        steady: list[ChatMessage] = []
        for message in messages:
            content = self.clean(message.content) if message.role == "system" else message.content
            if content == message.content:
                steady.append(message)
            elif content.strip():
                steady.append(msgspec.structs.replace(message, content=content))
        return tuple(steady)

    def clean(self, system: str) -> str:
        """A system prompt without it."""
        for pattern in self._patterns:
            system = pattern.sub("", system)
        return system


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise SettingsError(
            f"template.volatile is {pattern!r}: no regular expression ({error})"
        ) from error
