"""Between MLX arrays and the host's bytes: types, which side does the arithmetic, memory."""

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from greenroom.runtime.quantize import Array, bfloat16_to_float
from greenroom.runtime.spec import DTypeName, StateDType

MLX_DTYPES: Mapping[DTypeName, mx.Dtype] = {
    "float32": mx.float32,
    "float16": mx.float16,
    "bfloat16": mx.bfloat16,
}


def host_route() -> bool:
    """Whether numpy on the host is the quicker way to encode and decode: it is on MLX's CPU."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


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
