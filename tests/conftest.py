"""What tests of several modules share: the default model, fetched once into the user's cache."""

from pathlib import Path

import pytest

from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.download import ensure_model
from greenroom.runtime.layers import load_settings


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    """The folder of the model that every machine can run, GPU or not."""
    return ensure_model(load_catalog().default("cpu"), load_settings().settings.models_path)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests (``pytest.mark.anyio``) run on the event loop that greenroom runs on."""
    return "asyncio", {"use_uvloop": True}
