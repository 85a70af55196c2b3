"""Scenarios of several clients at once: who waits for whom."""

import itertools
import statistics
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from benchmarks.chats import Figures, Scale, briefed, say, warm_up
from benchmarks.contenders import Running, Unavailable
from benchmarks.prose import Messages, Prose
from benchmarks.serving import Answer

TIMES = 2
TOKENS = 64
LASTING = 240
"""Tokens of an answer that is long enough for somebody to come meanwhile."""
POLL_S = 0.05


def rates(server: Running, prose: Prose, scale: Scale) -> Figures:
    """Tokens per second that one agent gets, and that two get together."""
    warm_up(server, prose)
    num = scale.tokens(TOKENS)
    alone = [decoding([say(server, lasting(prose), num)]) for _ in range(TIMES)]
    two = []
    with ThreadPoolExecutor(2) as threads:
        for _ in range(TIMES):
            asked = [lasting(prose) for _ in range(2)]
            two.append(decoding(list(threads.map(lambda m: say(server, m, num), asked))))
    return {"one agent tok/s": alone, "two agents tok/s": two}


def newcomer(server: Running, prose: Prose, scale: Scale) -> Figures:
    """While one agent decodes, another comes with a cold prompt of 512 tokens."""
    warm_up(server, prose)
    length = scale.tokens(512)
    alone = say(server, prose.question(length)).ttft_s
    begun, answered = Event(), Event()

    def watch(pieces: int) -> bool:
        if pieces == 8:
            begun.set()
        return not answered.is_set()

    with ThreadPoolExecutor(1) as threads:
        turn = threads.submit(say, server, lasting(prose), LASTING, watch)
        try:
            if not begun.wait(120):
                raise Unavailable("the first agent does not decode")
            coming = say(server, prose.question(length))
        finally:
            answered.set()
        arrivals = turn.result().arrivals
    gaps = [b - a for a, b in itertools.pairwise(arrivals) if b > coming.sent]
    return {
        "largest gap s": [max(gaps, default=0.0)],
        "newcomer TTFT s": [coming.ttft_s],
        "newcomer / alone": [coming.ttft_s / alone],
    }


def twins(server: Running, prose: Prose, scale: Scale) -> Figures:
    """Two agents come at once with one new system prompt of 512 tokens."""
    warm_up(server, prose)
    length = scale.tokens(512)
    alone = say(server, briefed(prose.passage(length), "Who are you?")).ttft_s
    system = prose.passage(length)
    with ThreadPoolExecutor(2) as threads:
        asked = [briefed(system, question) for question in ("Who are you?", "What is it about?")]
        both = list(threads.map(lambda messages: say(server, messages), asked))
    slower = max(a.ttft_s for a in both)
    return {"slower of two s": [slower], "slower / alone": [slower / alone]}


def leaver(server: Running, prose: Prose, scale: Scale) -> Figures:
    """A client leaves in mid-answer: how long the next one's 16 tokens take, against usual."""
    warm_up(server, prose)
    found: dict[str, list[float]] = {"next s": [], "next / usual": []}
    for _ in range(TIMES):
        usual = say(server, prose.question(scale.tokens(128)), 16).total_s
        say(server, lasting(prose), LASTING, lambda num_pieces: num_pieces < 8)
        after = say(server, prose.question(scale.tokens(128)), 16).total_s
        found["next s"].append(after)
        found["next / usual"].append(after / usual)
    return found


def lag(server: Running, prose: Prose, scale: Scale) -> Figures:
    """How soon ``GET /v1/models`` is answered while a prompt of 512 tokens is read and answered.

    What the event loop, or the threads, of a server leave to others while it computes.
    """
    warm_up(server, prose)
    over = Event()

    def talk() -> None:
        try:
            say(server, prose.question(scale.tokens(512)), 32)
        finally:
            over.set()

    waits = []
    with ThreadPoolExecutor(1) as threads:
        turn = threads.submit(talk)
        while not over.is_set():
            begun = time.perf_counter()
            with urllib.request.urlopen(f"{server.url}/v1/models", timeout=60) as response:
                response.read()
            waits.append(1e3 * (time.perf_counter() - begun))
            time.sleep(POLL_S)
        turn.result()
    return {"median ms": [statistics.median(waits)], "worst ms": [max(waits)]}


def decoding(answers: Sequence[Answer]) -> float:
    """Tokens per second while all of them decode.

    A piece of text is nearly always a token; where not, each counts for its share.
    """
    begun = max(a.arrivals[0] for a in answers)
    ended = min(a.arrivals[-1] for a in answers)
    if ended <= begun:
        raise Unavailable("the two answers were not given at once")
    tokens = 0.0
    for a in answers:
        share = (a.completion_tokens or len(a.arrivals)) / len(a.arrivals)
        tokens += share * sum(begun < at <= ended for at in a.arrivals)
    return tokens / (ended - begun)


def lasting(prose: Prose) -> Messages:
    """A question of 128 tokens whose answer goes on for long."""
    return prose.question(128, "\n\nTell a very long story about it, with every detail.")
