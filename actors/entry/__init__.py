"""Greenroom: long-lived LLM agents whose attention state outlives turns, evictions and restarts."""

from importlib.metadata import version

__version__ = version("greenroom")
__all__ = ["__version__"]
