"""What tests of several modules share: the default model, fetched once into the user's cache."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.download import ensure_model
from greenroom.runtime.layers import load_settings
from tests.server import Server, make_home, running
from tests.wheel import build, environment

# Many tests compare what was computed in pieces with what was computed whole, to the bit. On
# Intel's own CPUs MKL gives up to 15 rows other bits than more; in its strict mode, in which steps
# of a row take twice as long, it gives all the same. It reads this when it first computes.
if Path("/proc/cpuinfo").is_file() and "GenuineIntel" in Path("/proc/cpuinfo").read_text():
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# How long an example takes is the machine's affair: a bound on time fails on a busy one.
settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    """The folder of the model that every machine can run, GPU or not."""
    return ensure_model(load_catalog().default("cpu"), load_settings().settings.models_path)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A live server with the default model, shared by tests that leave only memories behind."""
    with running(make_home(tmp_path_factory.mktemp("server"))) as live:
        yield live


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, for slow tests."""
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel_python(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The interpreter of an environment that has the wheel and what it needs."""
    return environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.fixture(scope="session", autouse=True)
def _no_blocked_loop() -> Iterator[None]:
    """A call of ours that blocks the event loop (a file, a lock, a sleep) fails the test."""
    with blockbuster_ctx(["greenroom.actors", "greenroom.runtime"]):
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests (``pytest.mark.anyio``) run on the event loop that greenroom runs on."""
    return "asyncio", {"use_uvloop": True}
