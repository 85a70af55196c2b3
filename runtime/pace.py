"""How fast this model prefills and decodes on this device, learned while it runs."""

WEIGHT = 0.3
"""Of the newest measurement; the rest stays with the past, so one hiccup does not halve a chunk."""


class Pace:
    """Moving averages of what steps cost; speeds fall with context, so they are never final."""

    def __init__(self) -> None:
        self.prefill_tokens_per_s = 256.0
        self.decode_step_s = 0.05
        self._known_prefill = False
        self._known_decode = False

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Learn from one chunk of ``tokens``."""
        speed = tokens / max(seconds, 1e-6)
        if self._known_prefill:
            speed = WEIGHT * speed + (1 - WEIGHT) * self.prefill_tokens_per_s
        self.prefill_tokens_per_s = speed
        self._known_prefill = True

    def decoded(self, seconds: float) -> None:
        """Learn from one decode step that no chunk disturbed."""
        if self._known_decode:
            seconds = WEIGHT * seconds + (1 - WEIGHT) * self.decode_step_s
        self.decode_step_s = seconds
        self._known_decode = True
