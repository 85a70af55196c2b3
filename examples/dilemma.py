"""Prisoner's dilemma in five phases: four agents, one of whom forgets each phase when it is over.

The scene is described in dilemma.toml; this program performs it, prints it, and says for each
phase how much of the prompts its members still knew. ``greenroom scene run`` would do as well.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import greenroom
from greenroom.runtime.layers import load_settings
from greenroom.runtime.scenario import read_scenario
from greenroom.runtime.transcript import Cast, Counted, Line, PhaseBegun

FILE = Path(__file__).with_name("dilemma.toml")


async def main(home: str) -> None:
    scenario = read_scenario(FILE.read_text())
    said: list[Line] = []
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
                    print(f"  {ballot.voter} chooses: {' '.join(ballot.ranking) or ballot.text!r}")
                case Counted(tally=tally):
                    print(f"  Together: {tally.points}")
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
