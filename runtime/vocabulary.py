"""A model's tokens as bytes, and what holds answers to a grammar. Safe off the MLX thread."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import llguidance.hf
from llguidance import LLMatcher, LLTokenizer
from mlx_lm.tokenizer_utils import TokenizerWrapper

from greenroom.runtime.constraint import Constraint
from greenroom.runtime.errors import InvalidRequest
from greenroom.runtime.lark import Lark
from greenroom.runtime.records import Tool
from greenroom.runtime.toolformat import Thinking, ToolFormat


class Vocabulary:
    """What llguidance knows of a tokenizer; built when it is first needed, which takes a second."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer: Any = tokenizer

    def utf8(self, token: int) -> bytes:
        """A token's own bytes, which may be part of a character; a special token's are its name."""
        return self._lexicon.decode_bytes([token])

    def matcher(
        self,
        constraint: Constraint,
        tools: Sequence[Tool],
        calls: ToolFormat,
        thinking: Thinking | None = None,
    ) -> LLMatcher:
        """A fresh matcher that lets through what the constraint allows; see ``Lark.grammar``.

        Raises InvalidRequest (the constraint's ``param``) for a schema that cannot be enforced.
        """
        try:
            grammar = self._lark.grammar(constraint, tools, calls, thinking)
        except RecursionError:
            raise _refused(constraint, "it is nested too deeply") from None
        made = LLMatcher(self._lexicon, grammar, log_level=0)
        if made.is_error():
            raise _refused(constraint, _reason(made.get_error()))
        # Some schemas compile and allow nothing, such as one that is defined by itself.
        first = made.deep_copy()
        first.compute_bitmask()
        if first.is_error():
            raise _refused(constraint, "no answer is valid")
        return made

    @cached_property
    def _lexicon(self) -> LLTokenizer:
        # mlx-lm's wrapper answers for the tokenizer within, but llguidance asks what it is.
        inner = vars(self._tokenizer)["_tokenizer"]
        return llguidance.hf.from_tokenizer(inner, eos_token=sorted(self._tokenizer.eos_token_ids))

    @cached_property
    def _lark(self) -> Lark:
        added: dict[str, int] = self._tokenizer.get_added_vocab()
        return Lark({text: n for text, n in added.items() if self._lexicon.is_special_token(n)})


def _refused(constraint: Constraint, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"{constraint.param} cannot be enforced: {reason}",
        param=constraint.param,
        code="unsupported_schema",
    )


def _reason(error: str) -> str:
    """The part of llguidance's message that is about the schema, and not about its grammar."""
    first, _, rest = error.strip().partition("failed to compile JSON schema: ")
    reason = (rest or first).split("<state>")[0].split("\n1 | ")[0]
    return " ".join(reason.split())[:300]
