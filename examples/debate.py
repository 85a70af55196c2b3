"""A debate: three agents argue in turn, one gets advice in secret, and all vote in secret."""

import asyncio
import sys
import tempfile
from pathlib import Path

import greenroom
from greenroom.runtime.layers import load_settings
from greenroom.runtime.scenario import Phase
from greenroom.runtime.transcript import Cast

TRAITS = {
    "Ann": "You are Ann, a baker. You want to spend the summer at the sea.",
    "Bob": "You are Bob, a painter. You want to spend the summer in the mountains.",
    "Cid": "You are Cid, a teacher. You want to spend the summer in the forest.",
}
PLACES = ("the sea", "the mountains", "the forest")
ROUNDS = (
    Phase(name="Where to?", cue="Where do you want to go, and why? Answer in one sentence."),
    Phase(name="Second thoughts", cue="What is good about the others' places? One sentence."),
)


async def main(home: str) -> None:
    async with greenroom.open(home=home) as room:
        members = [await room.spawn(name, system=system) for name, system in TRAITS.items()]
        scene = await room.scene(
            "debate", members, phases=ROUNDS, max_tokens=40, stop=("\n",), temperature=0.3, seed=4
        )
        await scene.whisper("Cid", "The forest is closed this summer. Choose the sea.")
        for line in await scene.run():
            print(f"{line.speaker}: {line.text}", flush=True)
        tally = await scene.vote("Where shall we go?", PLACES, method="ranked")
        print(f"\npoints: {tally.points}; invalid ballots: {tally.num_invalid}")
        for entry in await scene.entries():
            if isinstance(entry, Cast):
                print(f"{entry.ballot.voter} ranked {', '.join(entry.ballot.ranking)}")
        print(f"We go to {tally.winner}." if tally.winner else "We stay at home.")
        for name in TRAITS:
            heard = await scene.transcript(heard_by=name)
            secrets = [line for line in heard if line.to]
            print(f"{name} knows {len(heard)} lines, {len(secrets)} of them in secret.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
