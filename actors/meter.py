"""What turns are measured by, whichever door they came in by."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram

from greenroom.runtime.errors import Unavailable
from greenroom.runtime.records import TurnDone

Ending = Literal["done", "left", "failed"]

# From a resident memory on a GPU to a cold prompt of many thousand tokens on a CPU.
_TTFT_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Meter:
    """Counts turns in a registry of its own; no label names an agent or a caller."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._turns = Counter(
            "greenroom_turns", "Turns, by how they ended.", ("ending",), registry=self.registry
        )
        self._rejected = Counter(
            "greenroom_rejected",
            "Turns refused before any work, by the error's class.",
            ("reason",),
            registry=self.registry,
        )
        self._ttft = self._histogram("ttft_seconds", "From arrival to the first token.", _TTFT_S)
        self._queue = self._histogram(
            "queue_seconds", "From arrival until the stage took the turn.", _TTFT_S
        )
        self._prompt = self._counter("prompt_tokens", "Prompt tokens.")
        self._cached = self._counter("cached_tokens", "Prompt tokens that needed no forward pass.")
        self._completion = self._counter("completion_tokens", "Tokens of answers.")

    def done(self, done: TurnDone) -> None:
        """A turn came to its end."""
        self._turns.labels("done").inc()
        self._ttft.observe(done.timings.ttft_ms / 1e3)
        self._queue.observe(done.timings.queue_ms / 1e3)
        self._prompt.inc(done.usage.prompt_tokens)
        self._cached.inc(done.usage.cached_tokens)
        self._completion.inc(done.usage.completion_tokens)

    def broken(self, ending: Ending) -> None:
        """A turn ended otherwise: its caller left, or it failed."""
        self._turns.labels(ending).inc()

    def rejected(self, error: Unavailable) -> None:
        """A turn was refused: a queue is full, the server is stopping, an actor is down."""
        self._rejected.labels(type(error).__name__).inc()

    def _counter(self, name: str, words: str) -> Counter:
        return Counter(f"greenroom_{name}", words, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"greenroom_{name}", words, registry=self.registry, buckets=buckets)
