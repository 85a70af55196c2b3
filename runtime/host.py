"""Between MLX arrays and the host's bytes: types, which side does the arithmetic, memory."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from greenroom.runtime.blas import share_threads
from greenroom.runtime.lanes import Lanes
from greenroom.runtime.quantize import Array, bfloat16_to_float
from greenroom.runtime.spec import DTypeName, StateDType

MLX_DTYPES: Mapping[DTypeName, mx.Dtype] = {
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
}

_LANES = 2
"""Measured on two cores, where a chunk of 256 tokens takes some 0.6 of the time."""


def host_route() -> bool:
    """Whether numpy on the host is the quicker way to encode and decode: it is on MLX's CPU."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def helpers() -> int:
    """How many threads share what numpy does: a few, since all of them leave the GIL alone."""
    return min(4, os.cpu_count() or 1)


def chunk_lanes() -> Lanes:
    """Two lanes on a CPU whose BLAS shares its threads, one on a GPU. On the MLX thread.

    Their streams belong to that thread, and go with ``mx.clear_streams``. From now on each product
    that BLAS computes in this process has half of the cores: another stage may stand by the time
    that this one goes, so that it cannot be taken back.
    """
    if not host_route() or not share_threads(_LANES):
        return Lanes()
    more = (mx.new_stream(mx.cpu) for _ in range(_LANES - 1))
    return Lanes((mx.default_stream(mx.cpu), *more))


def host_dtype(name: StateDType) -> np.dtype[Any]:
    """The numpy type that holds a layer's elements; uint16 stands for bfloat16."""
    return np.dtype("uint16" if name == "bfloat16" else name)


def release_memory() -> None:
    """Give back to the system what turns have used and let go of. On the MLX thread.

    Buffers that are used again are quicker than new ones, whose pages the system must clear
    first: call it when nobody has spoken for a while. MLX keeps freed buffers for itself (many on
    Metal); on its CPU backend most go back to malloc, and glibc keeps what is not at the heap's
    end until it is told to look.
    """
    mx.clear_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl needs none
        if trim is not None:
            trim(0)


def memory_limit() -> int:
    """Bytes that caches may take beside the weights, once these are loaded: a fifth is left free.

    Of the GPU's own limit (on Metal the recommended working set) or, on the CPU, of the RAM, as
    far as a container may use it. On the MLX thread.
    """
    facts = mx.device_info()
    size = facts.get("max_recommended_working_set_size") or facts.get("total_memory")
    if host_route() or not isinstance(size, int):
        size = min(_ram(), _container_limit())
    return max(0, size * 4 // 5 - mx.get_active_memory())


def wire_memory() -> None:
    """Keep what MLX uses resident on Metal, up to the recommended working set, as mlx-lm does."""
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def _ram() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_limit() -> int:
    """The memory limit of the process's control group (Linux), or more than any machine has."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            return int(Path(file).read_text())
    return sys.maxsize


def to_host(array: mx.array) -> Array:
    """An evaluated MLX array as numpy, without a copy where the device shares memory.

    bfloat16, which numpy lacks, becomes its bits as uint16.
    """
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.array(array, copy=False)


def from_host(array: Array, dtype: StateDType) -> mx.array:
    """A copy of ``array``, which is of ``host_dtype(dtype)``, as MLX has it."""
    made = mx.array(array)
    return made.view(mx.bfloat16) if dtype == "bfloat16" else made


def as_float(tensor: Array) -> Any:
    """The float32 values of what ``to_host`` gave."""
    if tensor.dtype == np.uint16:
        return bfloat16_to_float(tensor)
    return tensor.astype(np.float32, copy=False)
