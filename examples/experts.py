"""Ten experts, each of whom has read one chapter: questions go to whoever knows.

Reading takes a while, once. After that an expert answers at once, also after a restart: the table
says how long the first word took, and how much of that the question itself would cost anybody.
"""

import asyncio
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import greenroom
from greenroom.actors.reply import Reply
from greenroom.actors.room import Room
from greenroom.runtime.layers import load_settings

QUESTIONS = {
    "with": "What does a with statement call at its end?",
    "raise": "What does raise without an expression do?",
    "class": "What does a class definition create?",
    "objects": "What three things does every object have?",
    "async": "Where may async for be used?",
    "identifiers": "What may identifiers consist of?",
    "naming": "What does naming bind?",
    "function": "When are a function's default values computed?",
    "binary": "What does the binary operator % yield?",
    "calls": "When are the arguments of calls evaluated?",
}


def chapter(name: str) -> str:
    """A chapter of Python's reference, 600 to 1,500 tokens."""
    return " ".join(topics[name].split())


def route(question: str) -> str:
    """The expert that is named, else the one whose chapter shares the most words, rarest first."""
    asked = set(re.findall(r"\w+", question.lower()))
    words = {name: set(re.findall(r"\w+", chapter(name).lower())) for name in QUESTIONS}
    common = Counter(word for known in words.values() for word in known)
    shared = {name: sum(1 / common[w] for w in asked & words[name]) for name in words}
    return max(words, key=lambda name: (name in asked, shared[name]))


async def ask(room: Room, name: str, question: str) -> Reply:
    """Ask the expert of that name, who reads its chapter if it has not yet."""
    system = f"You know this chapter and answer from it in one sentence.\n{chapter(name)}"
    expert = await room.spawn(f"expert.{name}", system=system)
    return await expert.say(question, max_tokens=20, temperature=0)


async def main(home: str) -> None:
    times: dict[str, list[Reply]] = {name: [] for name in QUESTIONS}
    for rounds in (("reads a chapter", "is asked again"), ("is asked after a restart",)):
        async with greenroom.open(home=home) as room:
            for when in rounds:
                for own, question in QUESTIONS.items():
                    name = route(question)
                    times[own].append(reply := await ask(room, name, question))
                    print(f"{name} {when} ({reply.timings.ttft_ms:.0f} ms): {reply.text.strip()}")
    print("\nexpert       chapter + new    read   again  restarted  (new tokens alone)  ms")
    for name, (read, again, restarted) in times.items():
        new, ms = restarted.usage.prompt_tokens - restarted.usage.cached_tokens, restarted.timings
        print(
            f"{name:<12} {read.usage.prompt_tokens:>7} + {new:<3} {read.timings.ttft_ms:>7.0f}"
            f" {again.timings.ttft_ms:>7.0f} {ms.ttft_ms:>10.0f}  {ms.prefill_ms:>9.0f}"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
