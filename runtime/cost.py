"""What a prefill chunk costs in time, and how large one fits into a given time. Pure arithmetic."""

import math

import msgspec


class ChunkCost(msgspec.Struct, frozen=True):
    """A chunk of n tokens after c others takes ``fixed_s + n token_s + n (c + n/2) pair_s``.

    The weights are read once however short the chunk is; each token takes its matrix products;
    each token attends to those before it. All in seconds, none negative.
    """

    fixed_s: float
    token_s: float
    pair_s: float

    def seconds(self, tokens: int, context: int) -> float:
        """What the chunk is expected to take."""
        pairs = tokens * (context + tokens / 2)
        return self.fixed_s + tokens * self.token_s + pairs * self.pair_s

    def fitting(self, seconds: float, context: int, most: int) -> int:
        """The largest chunk, of ``most`` tokens at most, that takes no more than ``seconds``.

        0 where not even one token fits.
        """
        left = seconds - self.fixed_s
        slope = self.token_s + context * self.pair_s
        if left < 0:
            return 0
        # The positive root of pair_s/2 n² + slope n - left, in the form that divides by no zero
        # unless everything is free.
        root = slope + math.sqrt(slope * slope + 2 * self.pair_s * left)
        return min(most, int(2 * left / root)) if root * most > 2 * left else most
