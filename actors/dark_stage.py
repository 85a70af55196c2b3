"""A stage without a model, for those who only want to look at memories and tend to them."""

import asyncio
from collections.abc import Callable
from typing import assert_never

from greenroom.actors.gpu_messages import (
    Back,
    Count,
    Describe,
    Discard,
    Extend,
    Finish,
    Generate,
    GpuMessage,
    ModelFacts,
    Named,
    Promote,
)
from greenroom.actors.opening import Opened, Play, Relieve
from greenroom.actors.vital import vital
from greenroom.runtime.actor import Actor
from greenroom.runtime.counters import StageCounters
from greenroom.runtime.errors import Unavailable
from greenroom.runtime.system import System

Look = Callable[[Play], ModelFacts]
"""Says what a model is, without its weights. Blocks. Raises ModelUnavailable."""


class DarkStage(Actor[GpuMessage]):
    """Stands where the GPU actor does: knows what the model is, and plays nothing."""

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts

    async def handle(self, message: GpuMessage) -> object:
        """Tell the facts, and refuse what needs the model; there is nothing else to do."""
        match message:
            case Describe():
                return self._facts
            case Count():
                return StageCounters()
            case Generate(_, _, reply):
                reply.fail(Unavailable("no model is loaded"))
            case Promote() | Extend() | Finish() | Named() | Discard() | Back():
                pass
            case _:
                assert_never(message)
        return None


async def open_dark(look: Look, system: System, play: Play, relieve: Relieve) -> Opened:
    """The facts without the model; see ``OpenStage``."""
    facts = await asyncio.to_thread(look, play)
    return system.spawn("gpu", lambda: DarkStage(facts), supervision=vital()), facts
