"""Greenroom: long-lived LLM agents whose attention state outlives turns, evictions and restarts."""

from importlib.metadata import version
from typing import Final

from greenroom.runtime.blas import Blas, preload_blas

__version__ = version("greenroom")

# Every module of the package is imported after this one, so the BLAS is in place before MLX is.
BLAS: Final[Blas] = preload_blas()

__all__ = ["BLAS", "__version__"]
