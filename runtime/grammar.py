"""Keeping a row within a grammar: only tokens that can still lead to a valid answer are left."""

from typing import cast

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher


class GrammarMask:
    """Masks the logits of one row by a matcher, which follows the row token by token.

    The matcher's work is done on the processor while the forward pass runs. A row whose answer is
    complete may end and nothing else; what the decode loop draws past its end does not matter.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        """``matcher`` must be fresh, and is used by nobody else."""
        self._matcher = matcher

    def __call__(self, last: mx.array | None, logits: mx.array) -> mx.array:
        """Shape one position's logits; see ``greenroom.runtime.penalties``."""
        mx.async_eval(logits)
        if last is not None:
            self._matcher.consume_token(cast("int", last.item()))
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little", count=logits.shape[-1])
        return mx.where(mx.array(allowed.astype(np.bool_)), logits, -mx.inf)
