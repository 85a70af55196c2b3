"""What the page of results says of each benchmark, and which of its figures it shows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.figures import quantile


class Section(msgspec.Struct, frozen=True):
    """One benchmark: ``text`` is true whatever it has measured, ``pick`` takes what is shown."""

    name: str
    title: str
    text: str
    pick: Callable[[Any], Any] = lambda result: result


def _ttft(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"tokens": length, "case": name, **case}
        for length, found in result.items()
        for name, case in found["cases"].items()
    ]


def _stall(result: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in point.items() if k != "visits"} for point in result]


def _writes(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shares = [turn["everything"] / turn["encoded"] for turn in turns]
    return {
        "turns": len(turns),
        "tokens in the context at the end": turns[-1]["context"],
        "written over encoded, median": quantile(shares, 0.5),
        "p95": quantile(shares, 0.95),
        "at most": max(shares),
        "first ten turns": quantile(shares[:10], 0.5),
        "last ten turns": quantile(shares[-10:], 0.5),
    }


def _memory(result: Mapping[str, Any]) -> dict[str, Any]:
    rest, shared = result["at_rest"], result["shared_bytes"]
    picked = {
        "idle MiB": rest["idle_mib"],
        "agents": len(rest["over_idle_mib"]),
        "prompt tokens": rest["prompt_tokens"],
        "MiB over idle, agent by agent": rest["over_idle_mib"],
        "MiB encoded on disk": rest["encoded_mib"],
    }
    if shared:
        picked["first sharer adds MB"] = shared[0] / 1e6
        picked["all other sharers together add MB"] = sum(shared[1:]) / 1e6
    return picked


SECTIONS = (
    Section(
        "ttft",
        "Time to the first token against the bare engine",
        "Every case beside its bound, measured in another process in the same repeat: mlx-lm alone"
        " for a cold prompt, else one forward of the new tokens over the decoded context and, where"
        " it must be decoded or read first, that too. Sooner: how many times sooner than mlx-lm"
        " reads the whole prompt.",
        _ttft,
    ),
    Section(
        "decode",
        "Tokens per second against the bare engine",
        "Through the HTTP door, against mlx-lm's GenerationBatch in a process of its own.",
    ),
    Section(
        "stall",
        "A newcomer while another decodes",
        "The largest gap between two tokens of the one who decodes, in undisturbed gaps, and the"
        " newcomer's time to its first token, in those of a cold prompt alone; over the setting of"
        " the gap (0 is the default) and over mlx-lm's chunk.",
        _stall,
    ),
    Section(
        "hearing",
        "Hearing",
        "What is heard while others talk, and what a turn after it costs.",
    ),
    Section(
        "scenes",
        "Scenes",
        "Five phases with memory and without; the next speaker of a round when it has heard the"
        " others, and when there was no time to; ten experts primed, asked again, and after a"
        " restart.",
    ),
    Section(
        "share",
        "What agents share",
        "Two agents that bring one new system prompt at once, against one alone and against two"
        " that may not share; and the trunk of branches.",
    ),
    Section(
        "memory",
        "Memory at rest",
        "The server's resident set over an idle one as agents come to rest, without decoded copies;"
        " and what ten agents with one system prompt add to the store.",
        _memory,
    ),
    Section(
        "writes",
        "Bytes written",
        "All that the process hands to the system for a turn, as a multiple of the new tokens'"
        " encoded size: whether it follows the new tokens or the context.",
        _writes,
    ),
    Section(
        "restore",
        "Reading and decoding a memory",
        "Against mx.load, whole-array arithmetic and concatenation of the same bytes.",
    ),
    Section(
        "quality",
        "What a codec costs in quality",
        "Perplexity of the next tokens on a context that was encoded and restored, against the"
        " float cache; bits per element; milliseconds.",
    ),
    Section(
        "sizes",
        "A large model's memory, by arithmetic",
        "Bytes of one layer of each kind of Gemma 3 12B, encoded; the rest is multiplication.",
    ),
    Section(
        "scale",
        "Many agents",
        "The start of a store of many segments, and what lookups take in it.",
    ),
    Section(
        "lag",
        "The event loop",
        "How much later than asked a timer of a millisecond rings, beside a bare loop in another"
        " process.",
    ),
    Section(
        "overload",
        "More clients than can be served",
        "Tokens of whole answers per second as clients are added.",
    ),
    Section(
        "api",
        "The Python door",
        "A turn's whole time over the stage's own, and a thousand agents and actors.",
    ),
    Section(
        "actors",
        "The actor kernel",
        "Microseconds, and bytes per idle actor, against what people would use instead; and an ask"
        " beside a flooded actor.",
    ),
)
