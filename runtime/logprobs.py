"""How likely the model found each token that was drawn, and which it found likelier."""

from collections import deque
from typing import cast

import mlx.core as mx

from greenroom.runtime.records import TokenLogprob


class LogprobRecorder:
    """Keeps the log-probabilities of drawn tokens until they are told.

    They are those of the model's own distribution, before any penalty, bias, grammar, temperature
    or filter. All is computed in the step that draws the token, so that telling never waits for
    the next one. The decode loop runs one token ahead: what is recorded last may never be told.
    """

    def __init__(self, num_top: int) -> None:
        """``num_top`` of the likeliest tokens are kept beside the drawn one; 0 for none."""
        self._num_top = num_top
        self._raw: mx.array | None = None
        self._drawn: deque[tuple[mx.array, mx.array]] = deque()

    def see(self, logits: mx.array) -> None:
        """The model's own logits ``[1, vocab]`` at the next position."""
        logits = logits.astype(mx.float32)
        self._raw = logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    def drew(self, token: mx.array) -> None:
        """The token ``[1]`` that was drawn there."""
        assert self._raw is not None
        raw = self._raw[0]
        ids = token.astype(mx.uint32)
        if self._num_top:
            num_top = min(self._num_top, raw.size)
            top = mx.argpartition(-raw, num_top - 1)[:num_top].astype(mx.uint32)
            ids = mx.concatenate([ids, top[mx.argsort(-raw[top])]])
        values = raw[ids]
        mx.async_eval(ids, values)
        self._drawn.append((ids, values))
        self._raw = None

    def take(self) -> TokenLogprob:
        """What belongs to the oldest drawn token that was not told yet."""
        ids, values = self._drawn.popleft()
        tokens, logprobs = cast("list[int]", ids.tolist()), cast("list[float]", values.tolist())
        drawn, *top = map(TokenLogprob, tokens, logprobs)
        return TokenLogprob(drawn.token, drawn.logprob, top=tuple(top))
