"""preload_blas in processes of its own: what is loaded cannot be unloaded."""

import os
import subprocess
import sys

import pytest

import greenroom
from greenroom.runtime.blas import Blas

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


@linux
def test_importing_greenroom_makes_matrix_products_fast() -> None:
    code = """
import greenroom, time  # CPU seconds: what else the machine does must not count
import mlx.core as mx
mx.set_default_device(mx.cpu)
a = mx.random.normal((768, 768)); mx.eval(a @ a)
times = []
for _ in range(5):
    start = time.process_time(); mx.eval(a @ a); times.append(time.process_time() - start)
print(2 * 768**3 / min(times) / 1e9)
"""
    assert greenroom.BLAS.library is not None
    assert float(_python(code)) > 8  # GFLOP a CPU second; the built-in BLAS reaches about 2


@linux
def test_the_library_is_in_the_global_scope() -> None:
    code = """
import ctypes
everything = ctypes.CDLL(None)
print(hasattr(everything, "cblas_sgemm"), end=" ")
import greenroom
print(hasattr(everything, "cblas_sgemm"))
"""
    assert _python(code) == "False True"


@linux
def test_products_side_by_side_share_the_cores() -> None:
    """Told twice it is the same; more parts than cores are refused."""
    code = """
import ctypes, os, greenroom
from greenroom.runtime.blas import share_threads
cores = len(os.sched_getaffinity(0))
most = ctypes.CDLL(None).MKL_Get_Max_Threads
print(share_threads(1), most() == cores, share_threads(cores), most(), share_threads(cores), most(),
      share_threads(cores + 1))
"""
    assert "mkl" in (greenroom.BLAS.library or "")
    free = {"MKL_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    assert _python(code, **free).split() == ["True", "True", "True", "1", "True", "1", "False"]
    told = "from greenroom.runtime.blas import share_threads; print(share_threads(2))"
    assert _python(told, OMP_NUM_THREADS="1") == "False"


@linux
def test_beside_lanes_a_product_has_half_of_the_cores() -> None:
    code = """
import ctypes, os, greenroom
import mlx.core as mx
from greenroom.runtime.host import chunk_lanes
mx.set_default_device(mx.cpu)
cores = len(os.sched_getaffinity(0))
most = ctypes.CDLL(None).MKL_Get_Max_Threads
lanes = chunk_lanes()
print(cores < 2 or most() == cores // 2)
"""
    free = {"MKL_NUM_THREADS": "", "OMP_NUM_THREADS": ""}
    assert _python(code, **free) == "True"


@linux
def test_mlx_imported_first_is_told() -> None:
    said = _python("import mlx.core, greenroom; print(greenroom.BLAS.warning)")
    assert "import greenroom first" in said


@linux
def test_without_any_library_the_warning_says_what_to_install() -> None:
    code = """
import greenroom.runtime.blas as blas
blas._candidates = lambda: ["libnothing.so"]
print(blas.preload_blas().warning)
"""
    assert "pip install 'greenroom[cpu]'" in _python(code)


@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_macos_needs_nothing() -> None:
    assert Blas() == greenroom.BLAS
