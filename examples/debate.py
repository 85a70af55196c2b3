"""A debate: three agents speak at once and in turn, get advice in secret, and vote by ballot."""

import asyncio
import sys
import tempfile
from pathlib import Path

import greenroom
from greenroom.runtime.layers import load_settings
from greenroom.runtime.transcript import Cast

TRAITS = {
    "Ann": "You are Ann, a baker. You love the sea. You speak in one short sentence.",
    "Bob": "You are Bob, a painter. You love the mountains. You speak in one short sentence.",
    "Cid": "You are Cid, a teacher. You love forests. You speak in one short sentence.",
}
PLACES = ("the sea", "the mountains", "the forest")


async def main(home: str) -> None:
    async with greenroom.open(home=home) as room:
        members = [await room.spawn(name, system=system) for name, system in TRAITS.items()]
        scene = await room.scene("debate", members, max_tokens=24, temperature=0.7, seed=4)
        await scene.say("Where shall we spend the summer? You may say why.")
        await scene.whisper("Cid", "Ann has said that she would go to the forest with you.")
        for line in await scene.run(turns=6):
            print(f"{line.speaker}: {line.text}", flush=True)
        await scene.say("Now we vote.")
        tally = await scene.vote("Where shall we go?", PLACES, method="ranked")
        print(f"\npoints: {tally.points}; invalid ballots: {tally.num_invalid}")
        for entry in await scene.entries():
            if isinstance(entry, Cast):
                print(f"{entry.ballot.voter} ranked {entry.ballot.ranking}: {entry.ballot.text!r}")
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
