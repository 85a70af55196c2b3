"""A scene goes on whatever crashes in its middle: real agents, a real stage, a real process."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import uvloop

import greenroom
from greenroom.actors.app import open_house
from greenroom.actors.scene_handle import Scene
from greenroom.actors.scene_messages import Interrupted, SceneEvent, Token
from greenroom.runtime.errors import Unavailable
from greenroom.runtime.layers import load_settings
from greenroom.runtime.settings import Settings
from greenroom.runtime.transcript import Cast, Line
from tests.menagerie import config_of
from tests.scenery import PLAY, Remains
from tests.server import make_home, running
from tests.zoo import save_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, default_model_path: Path) -> Path:
    config = {**config_of("llama"), "model_type": "llama", "vocab_size": 49152}
    return save_checkpoint(tmp_path_factory.mktemp("models") / "tiny", default_model_path, config)


def settings(home: Path, model: str) -> Settings:
    overrides = {"home": str(make_home(home)), "model.name": model, "log.level": "error"}
    return load_settings(environ={}, overrides=overrides).settings


Moment = tuple[type[Any], int]
"""A kind of event, and how many of them have been seen by then."""


class Striker:
    """Follows a scene and strikes once, when so many events of a kind have been seen."""

    def __init__(self, kind: type[Any], number: int, strike: Callable[[], object]) -> None:
        self._kind = kind
        self._left = number
        self._strike = strike

    def see(self, event: SceneEvent) -> None:
        if isinstance(event, self._kind):
            self._left -= 1
            if self._left == 0:
                self._strike()


async def to_its_end(scene: Scene, strikes: Sequence[Striker]) -> list[SceneEvent]:
    """Perform until it is over, again wherever it stops; everything that was seen."""
    seen: list[SceneEvent] = []
    for _ in range(9):
        try:
            async with aclosing(scene.stream()) as events:
                async for event in events:
                    seen.append(event)
                    for strike in strikes:
                        strike.see(event)
            return seen
        except Unavailable:
            await asyncio.sleep(0)
    raise AssertionError("the scene does not come to its end")


SLOWER = ("theatre", "director", "store", "keeper")
VICTIMS = [
    "gpu",
    "director/play.bob",
    "theatre/play",
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER),
]


@pytest.mark.parametrize("victim", VICTIMS)
def test_an_actor_crashes_in_the_middle_of_a_scene(
    victim: str, model: Path, tmp_path: Path
) -> None:
    crash_in_mid_scene(victim, settings(tmp_path / "home", str(model)))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["gpu", "director/play.bob"])
def test_an_actor_crashes_with_the_default_model(victim: str, tmp_path: Path) -> None:
    crash_in_mid_scene(victim, settings(tmp_path / "home", "default"))


def crash_in_mid_scene(victim: str, given: Settings) -> None:
    """Crash an actor in the middle of a token of bob's, in that of two at once, and of a vote."""

    async def scenario() -> None:
        moments: tuple[Moment, ...] = ((Token, 15), (Token, 60), (Cast, 1))
        async with asyncio.timeout(100), open_house(given) as house:
            info = await house.scenes.create(house.namespace, PLAY)
            scene = Scene(house.scenes, house.namespace, info.name)
            crashes = 0

            def crash() -> None:
                nonlocal crashes
                ref = house.system.get(victim)
                assert ref is not None
                ref.cell.fail(RuntimeError("crashed on purpose"))
                crashes += 1

            strikes = [Striker(kind, number, crash) for kind, number in moments]
            events = await to_its_end(scene, strikes)
            assert crashes == 3
            if victim == "gpu":
                assert any(isinstance(e, Interrupted) for e in events)

    uvloop.run(scenario())
    Remains(given.store_path, PLAY).check()


@pytest.mark.slow
def test_a_server_is_killed_in_the_middle_of_a_scene(model: Path, tmp_path: Path) -> None:
    """In mid-token, and in a vote."""
    killed(tmp_path / "home", str(model), [(Token, 5), (Cast, 1)]).check()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_with_the_default_model_is_killed_again_and_again(tmp_path: Path) -> None:
    chance = random.Random(9)
    moments: list[Moment] = [(Token, chance.randint(1, 30)) for _ in range(8)]
    killed(tmp_path / "home", "default", [*moments, (Line, 2), (Cast, 1)]).check()


def killed(home: Path, model: str, moments: Sequence[Moment]) -> Remains:
    """Perform the play in servers that are killed, each at its moment, and one that is not."""
    given = settings(home, model)

    async def perform(url: str, kill: Callable[[], object], kind: type[Any], number: int) -> None:
        striker = Striker(kind, number, kill)
        async with greenroom.connect(url) as room:
            scene = await room.scene(PLAY)
            with contextlib.suppress(Unavailable):
                async with aclosing(scene.stream()) as events:
                    async for event in events:
                        striker.see(event)

    never: Moment = (Token, 0)
    for kind, number in [*moments, never]:
        with running(home, "--model", model) as server:
            uvloop.run(perform(server.url, server.strike, kind, number))
    return Remains(given.store_path, PLAY)
