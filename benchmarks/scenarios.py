"""What is measured of every server: scenarios that a neutral OpenAI client can play.

A scenario gets a server and gives figures by name. Of a figure less is better, unless it is a rate.
Nobody is told who is speaking: no agent names, no cache keys. Answers are short and greedy; a
client sends back what it was told, as clients do.
"""

import json
import signal
import urllib.request
from collections.abc import Mapping
from typing import Any

import msgspec

from benchmarks import crowds, memories
from benchmarks.chats import Figures, Scale
from benchmarks.contenders import Running, Unavailable
from benchmarks.memories import Play
from benchmarks.prose import Messages, Prose
from benchmarks.serving import SILENCE_S, BareEngine

LENGTHS = (512, 1024, 2048, 4096)
CHUNK = 256
"""With which mlx-lm reads a cold prompt the soonest on a CPU, or nearly."""


class Scenario(msgspec.Struct, frozen=True):
    """One scenario: ``about`` what it is, and some ``seconds`` that it takes an MLX server.

    One that is ``apart`` gets a server that remembers nothing; the others follow each other on one
    server, with prompts of their own.
    """

    play: Play
    about: str
    seconds: float
    apart: bool = True


def more_is_better(figure: str) -> bool:
    """Whether a figure of that name is a rate."""
    return figure.endswith("tok/s")


def engine(server: Running, prose: Prose, scale: Scale) -> Figures:
    """The forward passes alone, without a server's part: mlx-lm's generator, llama.cpp's timings.

    What is left of a served cold prompt's time is the server's share.
    """
    prompts = [prose.question(scale.tokens(n)) for n in (512, 2048)]
    prompts.append(crowds.lasting(prose))
    if not server.contender.mlx:
        timed = [_timings(server, messages) for messages in prompts]
        read = [t["prompt_ms"] / 1e3 for t in timed]
        rate = timed[-1]["predicted_per_second"]
    elif server.contender.packages:
        raise Unavailable("its engine is greenroom's: MLX")
    else:
        server.end(signal.SIGTERM)
        bare = BareEngine(server.weights.folder, "raw")
        try:
            tokens = [prose.tokens(messages) for messages in prompts]
            bare.ask(op="raw", tokens=tokens[-1], chunk=CHUNK)  # what is made once is no figure
            read = [bare.ask(op="raw", tokens=each, chunk=CHUNK) for each in tokens]
            rate = bare.ask(op="decode", prompts=tokens[-1:], num_tokens=crowds.TOKENS)
        finally:
            bare.close()
    return {"512 tokens s": read[:1], "2048 tokens s": read[1:2], "decode tok/s": [rate]}


def _timings(server: Running, messages: Messages) -> Mapping[str, Any]:
    """What llama.cpp says that its own forward passes of a cold prompt and its answer took."""
    body = {"messages": messages, "temperature": 0, "max_tokens": crowds.TOKENS}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SILENCE_S) as response:
        timings: Mapping[str, Any] = json.load(response)["timings"]
    return timings


# In this order they are played when time is short: what is short comes first.
SCENARIOS: Mapping[str, Scenario] = {
    "rates": Scenario(
        crowds.rates, "Tokens per second of one agent, and of two at once together.", 16, False
    ),
    "newcomer": Scenario(
        crowds.newcomer,
        "One agent decodes when another comes with a cold prompt of 512 tokens: the largest gap"
        " between two tokens of the first, and how long the second waits for its own first.",
        22,
        False,
    ),
    "twins": Scenario(
        crowds.twins,
        "Two agents come at once with one new system prompt of 512 tokens: the slower one's time to"
        " its first token, and as a multiple of one that comes alone.",
        9,
        False,
    ),
    "leaver": Scenario(
        crowds.leaver,
        "A client leaves in mid-answer: how long the next one's whole answer of 16 tokens takes,"
        " and as a multiple of what it takes otherwise.",
        14,
        False,
    ),
    "lag": Scenario(
        crowds.lag,
        "How soon GET /v1/models is answered while a cold prompt of 512 tokens is read and"
        " answered: what a busy server leaves to others.",
        7,
        False,
    ),
    "phases": Scenario(
        memories.phases,
        "Five phases of a scene of four (examples/dilemma.toml), played by a client that re-sends"
        " each one's whole history: times to the first token, and all of them together.",
        45,
        False,
    ),
    "start": Scenario(
        memories.starting,
        "From the start of the process until it answers GET /v1/models, and until the first token"
        " of a short prompt.",
        15,
    ),
    "writes": Scenario(
        memories.writes,
        "Bytes handed to the system for a turn of some 50 new tokens of an agent of 1,024, and what"
        " is on disk when the server has been told to stop. Who keeps nothing writes nothing but a"
        " log and the answer.",
        20,
    ),
    "ttft-512": Scenario(
        memories.first_tokens(512),
        "Time to the first token of an agent of 512 tokens: cold; a short follow-up at once; the"
        " same request once more; a follow-up after SIGKILL and a new start; and after SIGTERM.",
        18,
    ),
    "ttft-1024": Scenario(memories.first_tokens(1024), "The same at 1,024 tokens.", 30),
    "experts": Scenario(
        memories.experts,
        "Ten experts, each with a chapter of 384 tokens as its system prompt: the first token when"
        " one is primed, and when it is asked again after all the others.",
        28,
    ),
    "return-8": Scenario(
        memories.returning(8, 512),
        "Eight agents of 512 tokens speak one after the other, then each again: the first token of"
        " a return, the slowest of them, and what the server's memory grew by.",
        35,
    ),
    "engine": Scenario(
        engine,
        "The forward passes alone, without a server's part: mlx-lm's own generator on MLX, and what"
        " llama.cpp says that it spent. The difference to a served cold prompt is the server's.",
        35,
    ),
    "ttft-2048": Scenario(
        memories.first_tokens(2048),
        "The same at 2,048 tokens. A server is not ended here where it cannot but read the whole"
        " prompt again, which is its cold figure.",
        28,
    ),
    "return-24": Scenario(
        memories.returning(24, 320),
        "Twenty-four agents of 320 tokens, as above: more than many a cache holds.",
        70,
    ),
    "ttft-4096": Scenario(
        memories.first_tokens(4096), "The same at 4,096 tokens, as at 2,048.", 85
    ),
}
