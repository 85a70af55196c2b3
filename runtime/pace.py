"""How fast this model prefills and decodes on this device, learned while it runs."""

from greenroom.runtime.cost import ChunkCost
from greenroom.runtime.plan import GRAIN

WEIGHT = 0.3
"""Of the newest decode step; the rest stays with the past, so one hiccup does not halve a chunk."""
ROW_WEIGHT = 0.05
"""The same where steps of one row and of two are compared, whose difference is small."""
ENOUGH = 10
"""Steps of each kind before they are compared."""
MEMORY = 0.97
"""What a chunk's measurement weighs after the next one: some thirty of them decide."""
SWEEPS = 8
"""Of coordinate descent per measurement. What the data leave open stays near where it was."""

# The shape that the first chunk is taken to have, as shares of its time: what it costs however
# short it is, what each token costs, and what attention to the tokens before costs.
_SHAPE = (0.3, 0.6, 0.1)
_FIRST = ChunkCost(fixed_s=0.1, token_s=0.004, pair_s=0.0)


class _Steps:
    """Decode steps of one kind: how many were seen, and what one takes of late."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += max(ROW_WEIGHT, 1 / self.count) * (seconds - self.seconds)


class Pace:
    """What steps cost, as measured: a chunk by its tokens and context, a decode step as it is.

    A chunk's cost is the best fit of ``ChunkCost`` to the latest ones by relative error, none of
    its terms below zero. Until the first one it is a guess.
    """

    def __init__(self) -> None:
        self.cost = _FIRST
        self.decode_step_s = 0.05
        self._known_decode = False
        self._steps = {rows: _Steps() for rows in (1, 2)}
        self._calm = False  # the last thing that was done was a decode step
        self._terms: list[float] | None = None
        self._moments = [[0.0] * 3 for _ in range(3)]
        self._sums = [0.0] * 3

    def prefilled(self, tokens: int, context: int, seconds: float, *, beside: bool = False) -> None:
        """Learn from one chunk of ``tokens`` after ``context`` others.

        ``beside`` others that decode it has waited for the step that runs ahead, too.
        """
        self.disturbed()
        if tokens < GRAIN:  # cut short at a boundary: its time is all overhead
            return
        if beside:
            seconds = max(seconds - self.decode_step_s, seconds / 4)
        seconds = max(seconds, 1e-6)
        sizes = (1.0, float(tokens), tokens * (context + tokens / 2))
        if self._terms is None:
            self._terms = [
                share * seconds / size for share, size in zip(_SHAPE, sizes, strict=True)
            ]
        row = [size / seconds for size in sizes]
        for i in range(3):
            self._sums[i] = MEMORY * self._sums[i] + row[i]
            for j in range(3):
                self._moments[i][j] = MEMORY * self._moments[i][j] + row[i] * row[j]
        for _ in range(SWEEPS):
            for i in range(3):
                rest = sum(self._moments[i][j] * self._terms[j] for j in range(3) if j != i)
                self._terms[i] = max(0.0, (self._sums[i] - rest) / self._moments[i][i])
        self.cost = ChunkCost(*self._terms)

    @property
    def row_cost(self) -> float:
        """What a second row adds to a decode step, as a share of it; 0 until that is known."""
        one, two = self._steps[1], self._steps[2]
        if min(one.count, two.count) < ENOUGH:
            return 0.0
        return two.seconds / one.seconds - 1

    def decoded(self, seconds: float, rows: int = 1) -> None:
        """Learn from one decode step of so many rows, unless it follows something else.

        After a chunk its tokens are there already; after a join it waits for more than its own.
        """
        calm, self._calm = self._calm, True
        if not calm:
            return
        if rows in self._steps:
            self._steps[rows].add(seconds)
        if self._known_decode:
            seconds = WEIGHT * seconds + (1 - WEIGHT) * self.decode_step_s
        self.decode_step_s = seconds
        self._known_decode = True

    def disturbed(self) -> None:
        """The next decode step says nothing about decode steps."""
        self._calm = False
