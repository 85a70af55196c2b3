"""What needs MLX says what to install where MLX has no backend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import greenroom
from greenroom.runtime.errors import ModelUnavailable


@contextmanager
def mlx_needed() -> Iterator[None]:
    """Import what needs MLX inside. Raises ModelUnavailable where MLX cannot be imported."""
    try:
        yield
    except ImportError as error:
        if not _is_backend_missing(error):
            raise
        raise ModelUnavailable(
            f"MLX has no backend here ({error}); install one: "
            "pip install 'greenroom[cpu]' or, with an NVIDIA card, pip install 'greenroom[cuda]'"
        ) from error
    if greenroom.BLAS.warning is not None:
        print(f"greenroom: {greenroom.BLAS.warning}", file=sys.stderr)


def _is_backend_missing(error: ImportError) -> bool:
    """mlx without a backend either has no core module or cannot load the library behind it."""
    return (error.name or "").startswith("mlx") or "libmlx" in str(error)
