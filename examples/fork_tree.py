"""One trunk, four branches explored at once, the best of them kept.

A fork costs a row in the index: the branches share the trunk's memory, and each prefills only what
is its own. The judge here is plain code: the story that uses the most of the wanted words.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import greenroom
from greenroom.actors.handle import Agent
from greenroom.actors.reply import Reply
from greenroom.runtime.layers import load_settings

SYSTEM = (
    "You tell stories. The story is set in a lighthouse on a small island. The keeper is Ida. "
    "She has a cat named Otto, a boat with a leak and a radio that receives one station only. "
    "Every night she writes the weather into a book, and every Sunday a ship brings flour, oil "
    "and letters. "
)
TURNS_OF_EVENTS = (
    "The radio speaks her name.",
    "The ship does not come.",
    "Otto finds a letter in a bottle.",
    "The light goes out in a storm.",
)
WANTED = ("Ida", "Otto", "boat", "radio", "storm", "letter", "light", "island", "night", "ship")


async def explore(trunk: Agent, number: int, event: str) -> tuple[Agent, Reply]:
    """A branch of the trunk's memory in which ``event`` happens."""
    branch = await trunk.fork(f"{trunk.name}.{number}")
    reply = await branch.say(f"{event} What happens next?", max_tokens=40, temperature=0)
    return branch, reply


def score(text: str) -> int:
    return sum(word.lower() in text.lower() for word in WANTED)


async def main(home: str) -> None:
    async with greenroom.open(home=home) as room:
        trunk = await room.spawn("story", system=SYSTEM)
        opening = await trunk.say("How does the story begin?", max_tokens=40, temperature=0)
        print(f"trunk ({opening.timings.ttft_ms:.0f} ms to the first word): {opening.text.strip()}")
        branches = await asyncio.gather(
            *(explore(trunk, n, event) for n, event in enumerate(TURNS_OF_EVENTS, 1))
        )
        for branch, reply in branches:
            usage = reply.usage
            print(
                f"\n{branch.name}: {usage.cached_tokens} of {usage.prompt_tokens} tokens shared, "
                f"score {score(reply.text)}\n  {reply.text.strip()}"
            )
        best, reply = max(branches, key=lambda pair: score(pair[1].text))
        for branch, _ in branches:
            if branch is not best:
                await branch.forget()
        kept = [info.name for info in await room.agents()]
        print(f"\nkept: {best.name}; agents now: {', '.join(kept)}")
        ending = await best.say("Tell the end in one sentence.", max_tokens=30, temperature=0)
        print(f"the end: {ending.text.strip()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
