"""Iterated prisoner's dilemma in five phases: four agents, one of whom forgets each phase.

The scene is described in dilemma.toml; this program performs it, keeps the score, and says for
each phase how much of the prompts its members still knew. ``greenroom scene run`` would do as well.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

import greenroom
from greenroom.runtime.layers import load_settings
from greenroom.runtime.scene_file import read_scenario
from greenroom.runtime.transcript import Cast, Counted, Line, PhaseBegun

FILE = Path(__file__).with_name("dilemma.toml")
MONTHS = {  # what each does -> months more, or less
    ("keep silent", "keep silent"): (-1, -1),
    ("keep silent", "betray"): (12, -12),
    ("betray", "keep silent"): (-12, 12),
    ("betray", "betray"): (6, 6),
}


async def main(home: str) -> None:
    scenario = read_scenario(FILE.read_text())
    said: list[Line] = []
    months: Counter[str] = Counter(Marco=0, Danny=0)
    choices: dict[str, str] = {}
    async with greenroom.open(home=home) as room:
        scene = await room.scene(scenario)
        async for event in scene.stream():
            match event:
                case PhaseBegun(phase=phase):
                    print(f"\n— {scenario.phases[phase].name} —")
                case Line(speaker=speaker, to=to, text=text):
                    only = f" (only {', '.join(to)} can hear it)" if to else ""
                    print(f"{speaker or 'Narrator'}{only}: {text}", flush=True)
                    said += [event] if event.usage else []
                case Cast(ballot=ballot):
                    choices[ballot.voter] = next(iter(ballot.ranking), "keep silent")
                    print(f"  {ballot.voter} chooses: {' '.join(ballot.ranking) or ballot.text!r}")
                case Counted():
                    marco, danny = MONTHS[choices["Marco"], choices["Danny"]]
                    months.update(Marco=marco, Danny=danny)
                    print(f"  Months so far: Marco {months['Marco']:+}, Danny {months['Danny']:+}")
                case _:
                    pass
    print("\nphase  turns  prompt tokens  of them remembered  mean time to first token")
    for n in range(len(scenario.phases)):
        turns = [line for line in said if line.phase == n]
        prompt = sum(line.usage.prompt_tokens for line in turns if line.usage)
        cached = sum(line.usage.cached_tokens for line in turns if line.usage)
        ttft_ms = sum(line.timings.ttft_ms for line in turns if line.timings) / len(turns)
        print(f"{n + 1:>5}  {len(turns):>5}  {prompt:>13}  {cached:>18}  {ttft_ms:>21.0f} ms")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="greenroom-") as folder:
        # A home of its own, with the models that are there already.
        Path(folder, "models").symlink_to(load_settings().settings.models_path)
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else folder))
