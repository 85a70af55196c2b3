"""A fast BLAS for MLX's CPU backend, put in place before MLX is imported.

The Linux CPU build of MLX links a reference BLAS of about 2 GFLOP/s. The dynamic linker takes the
first definition in the global symbol scope, so a better library loaded there earlier serves MLX
without touching it (50 to 150 GFLOP/s on two cores).
"""

import ctypes
import ctypes.util
import os
import sys
from importlib import metadata
from pathlib import Path

from msgspec import Struct


class Blas(Struct, frozen=True):
    """What ``preload_blas`` did: the ``library`` loaded, if any, and a ``warning`` to log once."""

    library: str | None = None
    warning: str | None = None


def preload_blas() -> Blas:
    """Load MKL or OpenBLAS into the global symbol scope.

    Call it before the first ``import mlx.core``. Does nothing on macOS (Accelerate is linked) and
    where MLX's CUDA backend is installed. Never raises: without a fast BLAS all still works,
    slowly, and the answer carries a warning that says what to install.
    """
    if sys.platform != "linux" or _has_cuda_backend():
        return Blas()
    if "mlx.core" in sys.modules:
        return Blas(
            warning="mlx was imported before greenroom, so its slow built-in BLAS stays in use; "
            "import greenroom first"
        )
    for library in _candidates():
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return Blas(library=library)
    return Blas(
        warning="no fast BLAS found: the model will run 10 to 20 times slower than it could; "
        "install the package mkl (pip install 'greenroom[cpu]') or libopenblas"
    )


def share_threads(parts: int) -> bool:
    """Let each of so many products at once have its part of the cores, in the whole process.

    False where the BLAS in use has no such setting, or there are fewer cores than parts; the cores
    are those that the process may use, and the environment (``MKL_NUM_THREADS``,
    ``OMP_NUM_THREADS``) allows.
    """
    if (cores := _cores()) < parts:
        return False
    for name in ("MKL_Set_Num_Threads", "openblas_set_num_threads"):
        if (limit := getattr(ctypes.CDLL(None), name, None)) is not None:
            limit(cores // parts)
            return True
    return False


def _cores() -> int:
    if sys.platform != "linux":
        return 1
    told = [os.environ.get(name, "") for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS")]
    return min([len(os.sched_getaffinity(0)), *(int(n) for n in told if n.isdigit() and int(n))])


def _candidates() -> list[str]:
    """Libraries to try, best first: this environment's MKL, then the system's OpenBLAS."""
    mkl = sorted(_distribution_files("mkl", "libmkl_rt.so"), reverse=True)
    mkl += sorted((str(p) for p in Path(sys.prefix, "lib").glob("libmkl_rt.so*")), reverse=True)
    if mkl:
        # libmkl_rt chooses its threading layer when first called. The mkl package brings Intel's
        # OpenMP with it; GNU's is not there on a plain system.
        os.environ.setdefault("MKL_THREADING_LAYER", "INTEL")
        # Its threads otherwise go on spinning for 200 ms after a product, on cores that others
        # could use; within a pass the next product follows sooner than after one.
        os.environ.setdefault("KMP_BLOCKTIME", "1")
    found = ctypes.util.find_library("openblas")
    return [*mkl, *([found] if found else []), "libopenblas.so.0"]


def _distribution_files(name: str, prefix: str) -> list[str]:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return []
    return [str(Path(f.locate()).resolve()) for f in files if f.name.startswith(prefix)]


def _has_cuda_backend() -> bool:
    for name in ("mlx-cuda-12", "mlx-cuda-13", "mlx-cuda"):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False
