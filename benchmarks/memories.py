"""Scenarios of one agent after the other: what is left of a conversation when it goes on."""

import signal
import time
from collections.abc import Callable
from pydoc_data.topics import topics

from benchmarks.chats import FOLLOW_UP, Chat, Figures, Scale, briefed, say, warm_up
from benchmarks.contenders import ENDS, Running
from benchmarks.machine import ROOT
from benchmarks.prose import Prose
from greenroom.runtime.scene_file import read_scenario

EXPERTS = 10
TIMES = 3
LONG = 1024
"""With more tokens, a server is not ended where all that it can do is to begin anew."""

Play = Callable[[Running, Prose, Scale], Figures]


def first_tokens(length: int) -> Play:
    """Cold, hot, sent again, and after both kinds of end, at one prompt length."""

    def play(server: Running, prose: Prose, scale: Scale) -> Figures:
        warm_up(server, prose)
        chat = Chat(server, prose.question(scale.tokens(length)))
        figures = {"cold s": [chat.ask().ttft_s]}
        figures["hot s"] = [chat.ask(FOLLOW_UP).ttft_s for _ in range(TIMES)]
        figures["sent again s"] = [chat.again().ttft_s for _ in range(TIMES)]
        # SIGKILL first: what is saved on SIGTERM would still be there after it.
        for name in reversed(ENDS):
            if length > LONG and name not in server.contender.survives:
                continue
            server.end(signal.Signals[name])
            server.start()
            warm_up(server, prose)
            figures[f"after {name} s"] = [chat.ask(FOLLOW_UP).ttft_s]
        return figures

    return play


def returning(num_agents: int, length: int) -> Play:
    """So many agents that speak one after the other: what a return to each of them costs."""

    def play(server: Running, prose: Prose, scale: Scale) -> Figures:
        warm_up(server, prose)
        before = server.resident_bytes()
        tokens = scale.tokens(length)
        chats = [Chat(server, prose.question(tokens)) for _ in range(scale.count(num_agents))]
        for chat in chats:
            chat.ask()
        time.sleep(1.0)
        grown = server.resident_bytes() - before
        returns = [chat.ask(FOLLOW_UP).ttft_s for chat in chats]
        return {
            "return s": returns,
            "worst return s": [max(returns)],
            "memory growth MiB": [max(1.0, grown / 2**20)],  # what loading left may go meanwhile
        }

    return play


def experts(server: Running, prose: Prose, scale: Scale) -> Figures:
    """Ten experts, each with a chapter of its own: what asking one costs, once it is primed."""
    warm_up(server, prose)
    chapters = sorted(topics, key=lambda name: len(topics[name]))[-scale.count(EXPERTS) :]
    chats = []
    primed = []
    for name in chapters:
        text = prose.text.decode(prose.text.encode(topics[name])[: scale.tokens(384)])
        chat = Chat(server, briefed(text, "What is your subject?"))
        primed.append(chat.ask().ttft_s)
        chats.append(chat)
    return {"primed s": primed, "asked s": [chat.ask("Give one example.").ttft_s for chat in chats]}


def phases(server: Running, prose: Prose, scale: Scale) -> Figures:
    """``examples/dilemma.toml`` as a client without memory of its own plays it: five phases.

    Each speaker's conversation holds what it has heard; with the phases it gets longer.
    """
    warm_up(server, prose)
    scenario = read_scenario((ROOT / "examples" / "dilemma.toml").read_text())
    chats = {m.name: Chat(server, [{"role": "system", "content": m.system or ""}])
             for m in scenario.members}  # fmt: skip
    heard: dict[str, list[str]] = {name: [] for name in chats}
    waits: list[list[float]] = []
    for phase in scenario.script:
        for name in heard:
            heard[name] += [line for line in (phase.opening, phase.whispers.get(name)) if line]
        waits.append([])
        for speaker in phase.speakers or scenario.cast(phase):
            told = "\n\n".join(heard[speaker]) or "It is your turn."
            heard[speaker].clear()
            answer = chats[speaker].ask(told, scale.count(24))
            waits[-1].append(answer.ttft_s)
            for name in phase.audience or tuple(heard):
                if name != speaker:
                    heard[name].append(f"{speaker}: {answer.text}")
    return {
        "first phase s": waits[0],
        "last phase s": waits[-1],
        "all waits s": [sum(map(sum, waits))],
    }


def writes(server: Running, prose: Prose, scale: Scale) -> Figures:
    """Bytes that a turn of some 50 new tokens of an agent of 1,024 writes; and what is there then.

    That is after SIGTERM, on which some save everything.
    """
    chat = Chat(server, prose.question(scale.tokens(1024)))
    chat.ask()
    figures = []
    for _ in range(TIMES):
        time.sleep(1.0)
        before = server.bytes_written()
        chat.ask(FOLLOW_UP, 32)
        time.sleep(1.0)
        figures.append((server.bytes_written() - before) / 1e6)
    server.end(signal.SIGTERM)
    return {"written MB": figures, "on disk after SIGTERM MB": [server.bytes_on_disk() / 1e6]}


def starting(server: Running, prose: Prose, scale: Scale) -> Figures:
    """Seconds from the start of the process until it answers, and until its first token."""
    ready, first = [], []
    for _ in range(scale.count(TIMES)):
        server.end(signal.SIGTERM)
        ready.append(server.start())
        first.append(ready[-1] + say(server, prose.question(64)).ttft_s)
    return {"ready s": ready, "first token s": first}
