"""What is measured of every server: scenarios that a neutral OpenAI client can play.

A scenario gets a server that has just been started with nothing remembered and gives figures by
name. Of a figure less is better, unless its name is in ``MORE_IS_BETTER``. Nobody is told who is
speaking: no agent names, no cache keys.
"""

import itertools
import signal
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pydoc_data.topics import topics

from benchmarks.contenders import Running
from benchmarks.prose import Messages, Prose
from benchmarks.serving import Answer, Watch, ask

Figures = Mapping[str, float]
Scenario = Callable[[Running, Prose], Figures]

LENGTHS = (512, 1024, 2048, 4096)
MORE_IS_BETTER = frozenset({"one agent tok/s", "two agents tok/s"})
FOLLOW_UP = "Say the most important of it once more, in other words."
EXPERTS = 10


class Chat:
    """One conversation of a client that re-sends its whole history, as most do."""

    def __init__(self, server: Running, messages: Messages) -> None:
        self._server = server
        self.messages = messages

    def ask(self, question: str | None = None, max_tokens: int = 8) -> Answer:
        """Send the history, with a further question if there is one; the answer becomes part."""
        if question is not None:
            self.messages.append({"role": "user", "content": question})
        answer = say(self._server, self.messages, max_tokens)
        self.messages.append({"role": "assistant", "content": answer.text})
        return answer

    def again(self) -> Answer:
        """Send the last request once more, exactly."""
        return say(self._server, self.messages[:-1])


def say(
    server: Running, messages: Messages, max_tokens: int = 8, watch: Watch = lambda _: True
) -> Answer:
    """One greedy streamed answer."""
    return ask(server.url, None, messages, max_tokens, watch, model=server.model_id)


def first_tokens(length: int) -> Scenario:
    """Cold, hot, sent again, and after both kinds of end, at one prompt length."""

    def scenario(server: Running, prose: Prose) -> Figures:
        say(server, prose.question(64))  # what is loaded or compiled at the first turn is
        chat = Chat(server, prose.question(length))
        figures = {"cold s": chat.ask().ttft_s}
        figures["hot s"] = chat.ask(FOLLOW_UP).ttft_s
        figures["sent again s"] = chat.again().ttft_s
        for name, number in (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL)):
            server.end(number)
            server.start()
            say(server, prose.question(64))
            figures[f"after {name} s"] = chat.ask(FOLLOW_UP).ttft_s
        return figures

    return scenario


def returning(num_agents: int) -> Scenario:
    """Agents of 1,024 tokens that speak one after the other: what a return to each costs."""

    def scenario(server: Running, prose: Prose) -> Figures:
        say(server, prose.question(64))
        before = server.resident_bytes()
        chats = [Chat(server, prose.question(1024)) for _ in range(num_agents)]
        for chat in chats:
            chat.ask()
        grown = server.resident_bytes() - before
        returns = [chat.ask(FOLLOW_UP).ttft_s for chat in chats]
        return {
            "return, median s": statistics.median(returns),
            "return, worst s": max(returns),
            "memory growth MiB": grown / 2**20,
        }

    return scenario


def rates(server: Running, prose: Prose) -> Figures:
    """Tokens per second that one agent gets, and that two get together."""
    say(server, prose.question(64))
    alone = _decoding([say(server, _long(prose), 96)])
    with ThreadPoolExecutor(2) as threads:
        two = [_long(prose) for _ in range(2)]
        answers = list(threads.map(lambda messages: say(server, messages, 96), two))
    return {"one agent tok/s": alone, "two agents tok/s": _decoding(answers)}


def newcomer(server: Running, prose: Prose) -> Figures:
    """While one agent decodes, another comes with a cold prompt of 1,024 tokens."""
    say(server, prose.question(64))
    alone = say(server, prose.question(1024)).ttft_s
    with ThreadPoolExecutor(1) as threads:
        decoding = threads.submit(say, server, _long(prose), 200)
        time.sleep(3.0)  # it decodes by now
        coming = say(server, prose.question(1024))
        arrivals = decoding.result().arrivals
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    return {
        "largest gap s": max(gaps),
        "newcomer TTFT s": coming.ttft_s,
        "newcomer / alone": coming.ttft_s / alone,
    }


def twins(server: Running, prose: Prose) -> Figures:
    """Two agents come at once with one new system prompt of 1,000 tokens."""
    say(server, prose.question(64))
    alone = say(server, _briefed(prose.passage(1000), "Who are you?")).ttft_s
    system = prose.passage(1000)
    with ThreadPoolExecutor(2) as threads:
        asked = [_briefed(system, question) for question in ("Who are you?", "What is it about?")]
        both = list(threads.map(lambda messages: say(server, messages), asked))
    return {"slower of two s": max(a.ttft_s for a in both), "of one alone s": alone}


def experts(server: Running, prose: Prose) -> Figures:
    """Ten experts, each with a chapter of its own: what asking one costs, once it is primed."""
    say(server, prose.question(64))
    chapters = sorted(topics, key=lambda name: len(topics[name]))[-EXPERTS:]
    chats = []
    primed = []
    for name in chapters:
        text = prose.text.decode(prose.text.encode(topics[name])[:512])
        chat = Chat(server, _briefed(text, "What is your subject?"))
        primed.append(chat.ask().ttft_s)
        chats.append(chat)
    asked = [chat.ask("Give one example.").ttft_s for chat in chats]
    return {"primed s": statistics.median(primed), "asked s": statistics.median(asked)}


def leaver(server: Running, prose: Prose) -> Figures:
    """A client leaves in mid-answer: how long the next one's 16 tokens take, against usual."""
    say(server, prose.question(64))
    usual = say(server, prose.question(128), 16).total_s
    say(server, _long(prose), 400, lambda num_pieces: num_pieces < 8)
    after = say(server, prose.question(128), 16).total_s
    return {"next / usual": after / usual}


def writes(server: Running, prose: Prose) -> Figures:
    """Bytes on disk that a turn of some 50 new tokens adds to an agent of 1,024."""
    chat = Chat(server, prose.question(1024))
    chat.ask()
    time.sleep(2.0)
    before = server.bytes_on_disk()
    chat.ask(FOLLOW_UP, 32)
    time.sleep(2.0)
    return {"written MB": (server.bytes_on_disk() - before) / 1e6}


def starting(server: Running, prose: Prose) -> Figures:
    """Seconds from the start of the process until it answers, and until its first token."""
    server.end(signal.SIGTERM)
    ready = server.start()
    return {"ready s": ready, "first token s": ready + say(server, prose.question(64)).ttft_s}


SCENARIOS: Mapping[str, Scenario] = {
    **{f"ttft-{length}": first_tokens(length) for length in LENGTHS},
    "return-8": returning(8),
    "return-24": returning(24),
    "rates": rates,
    "newcomer": newcomer,
    "twins": twins,
    "experts": experts,
    "leaver": leaver,
    "writes": writes,
    "start": starting,
}


def _long(prose: Prose) -> Messages:
    """A question whose answer goes on for long."""
    return prose.question(128, "\n\nTell a very long story about it, with every detail.")


def _briefed(system: str, question: str) -> Messages:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def _decoding(answers: list[Answer]) -> float:
    """Tokens per second while all of them decode: one piece of text is about one token."""
    begun = max(a.arrivals[0] for a in answers)
    ended = min(a.arrivals[-1] for a in answers)
    num = sum(sum(begun < at <= ended for at in a.arrivals) for a in answers)
    return num / (ended - begun)
