"""Ten experts, each of whom has read one chapter: questions go to whoever knows.

Reading takes a while, once. After that an expert answers at once, also after a restart: the last
columns say how long the first word took, and how much of that was spent on the question itself.
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
    "with": "What does a context manager do on entry and exit of a with statement?",
    "lambda": "What do lambda expressions create?",
    "assert": "When does an assert statement raise an error?",
    "del": "What does deletion of a name remove?",
    "global": "What does the global statement make of names?",
    "for": "How does a for loop iterate over a sequence?",
    "import": "What are the steps of an import statement?",
    "class": "What does a class definition define?",
    "yield": "What does a yield statement turn a function into?",
    "raise": "Which exception does a bare raise statement re-raise?",
}


def chapter(name: str) -> str:
    """The beginning of a chapter of Python's reference, about 350 tokens."""
    return " ".join(topics[name].split())[:1400]


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
    return await expert.say(question, max_tokens=12, temperature=0)


async def main(home: str) -> None:
    times: dict[str, list[Reply]] = {name: [] for name in QUESTIONS}
    for rounds in (("reads", "is asked again"), ("is asked after a restart",)):
        async with greenroom.open(home=home) as room:
            for when in rounds:
                for own, question in QUESTIONS.items():
                    name = route(question)
                    times[own].append(reply := await ask(room, name, question))
                    print(f"expert {name} {when}: {reply.text.strip()!r}")
    print("\nexpert   chapter  reading  again  restarted  (new tokens)")
    for name, (first, again, restarted) in times.items():
        new = restarted.usage.prompt_tokens - restarted.usage.cached_tokens
        print(
            f"{name:<8} {first.usage.prompt_tokens:>7}  {first.timings.ttft_ms:>4.0f} ms"
            f"  {again.timings.ttft_ms:>4.0f}  {restarted.timings.ttft_ms:>7.0f}     {new}"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
