"""Opening the stage: the GPU actor, with a model that loads."""

from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from greenroom.actors.gpu import Emit, Flush, GpuActor, Patience
from greenroom.actors.gpu_messages import Describe, GpuMessage, ModelFacts
from greenroom.actors.vital import vital_decider
from greenroom.runtime.catalog import ModelEntry
from greenroom.runtime.errors import Unavailable
from greenroom.runtime.ref import Ref
from greenroom.runtime.stage import Stage
from greenroom.runtime.supervise import Decision, Supervision
from greenroom.runtime.system import System
from greenroom.runtime.worker import Worker


class Play(msgspec.Struct, frozen=True):
    """A model that can be put up: its catalog entry, its files, and its codec's label."""

    entry: ModelEntry
    path: Path
    codec: str


SetStage = Callable[[Play, Emit, Flush], tuple[Stage, ModelFacts]]
"""Loads a model and sets the stage, on the thread that will own MLX."""
Relieve = Callable[[int], object]
"""Is asked for so many bytes of what encoded segments take in memory."""
Opened = tuple[Ref[GpuMessage], ModelFacts]
OpenStage = Callable[[System, Play, Relieve], Coroutine[Any, Any, Opened]]
"""Spawns the actor ``gpu``. Raises what loading raises, with nothing left behind."""


class _Opening:
    """How the GPU actor is supervised: a model that does not load is not loaded again."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.succeeded = False

    def decide(self, error: BaseException) -> Decision:
        if self.succeeded:
            return vital_decider(error)
        self.error = error
        return Decision.STOP


async def open_stage(
    set_stage: SetStage,
    patience: Patience,
    threads: list[Worker],
    system: System,
    play: Play,
    relieve: Relieve,
) -> Opened:
    """Load the model; see ``OpenStage``."""
    opening = _Opening()
    gpu: Ref[GpuMessage] = system.spawn(
        "gpu",
        partial(GpuActor, partial(set_stage, play), threads, patience, relieve),
        supervision=Supervision(decider=opening.decide, exhausted=Decision.ESCALATE),
    )
    try:
        facts = await gpu.ask(Describe())
    except Unavailable as error:
        await system.stop(gpu)
        raise opening.error or error from None
    opening.succeeded = True
    return gpu, facts
