"""The servers that are compared: what each is, how it is installed and started, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Mapping
from pathlib import Path

import msgspec

READY_S = 180.0
"""How long a server may take until it answers."""
ENGINE = ("mlx[cpu]==0.32.4", "mkl==2026.2.0")
"""The same MLX and the same BLAS for every server that runs on MLX."""


class Unavailable(Exception):
    """A contender cannot run here; the message says why."""


class Contender(msgspec.Struct, frozen=True):
    """One server with one set of flags.

    ``packages`` go into a virtual environment of its own, those of ``bare`` without what they
    depend on; no ``packages`` at all: this environment. In ``command`` and ``durable``,
    ``{model}``, ``{port}`` and ``{disk}`` (a folder that outlives the process) are filled in.
    ``model_id`` is what requests call the model. ``durable`` flags are for those that can keep
    their memory on disk.
    """

    name: str
    command: tuple[str, ...]
    model_id: str = "{model}"
    packages: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    durable: tuple[str, ...] = ()


_MLX_LM = ("{python}", "-m", "mlx_lm", "server", "--model", "{model}", "--port", "{port}")
_VLLM_MLX = ("{bin}/vllm-mlx", "serve", "{model}", "--port", "{port}")
_VLLM_PACKAGES = (
    *ENGINE,
    *("mlx-lm==0.31.3", "transformers>=5", "fastapi", "uvicorn", "starlette", "psutil", "requests"),
    *("prometheus-client", "jsonschema", "lm-format-enforcer", "llguidance", "pytz", "tabulate"),
    *("pillow", "numpy", "pyyaml", "tqdm", "mcp", "python-multipart"),
)
# Its text models need neither torchvision nor gradio nor OpenCV, which it asks for.
_VLLM_BARE = ("vllm-mlx==0.6.0", "mlx-vlm==0.7.10", "mlx-embeddings==0.1.0")
_GREENROOM = ("{python}", "-m", "greenroom", "serve", "--home", "{disk}", "--port", "{port}")

CONTENDERS = {
    c.name: c
    for c in (
        Contender("greenroom", _GREENROOM, "default"),
        Contender("mlx-lm", _MLX_LM, "default_model", (*ENGINE, "mlx-lm==0.32.2")),
        # Smaller chunks: cold prompts are sooner on a CPU, and who decodes waits less.
        Contender(
            "mlx-lm, best flags",
            (*_MLX_LM, "--prefill-step-size", "256", "--prompt-cache-size", "64"),
            "default_model",
            (*ENGINE, "mlx-lm==0.32.2"),
        ),
        Contender("vllm-mlx", _VLLM_MLX, packages=_VLLM_PACKAGES, bare=_VLLM_BARE),
        Contender(
            "vllm-mlx, best flags",
            (*_VLLM_MLX, "--continuous-batching", "--enable-prefix-cache"),
            packages=_VLLM_PACKAGES,
            bare=_VLLM_BARE,
            durable=("--ssd-cache-dir", "{disk}/ssd"),
        ),
        Contender(
            "llama.cpp",
            ("llama-server", "--model", "{gguf}", "--port", "{port}", "--slot-save-path", "{disk}"),
        ),
    )
}


class Running:
    """A contender's process on ``disk``, which it keeps when it is ended and started again."""

    def __init__(self, contender: Contender, model: Path, disk: Path, environments: Path) -> None:
        self.contender = contender
        self._model = model
        self._disk = disk
        self._bin = _environment(contender, environments)
        self._process: subprocess.Popen[bytes] | None = None
        self.model_id = self._fill(contender.model_id, 0)
        self.url = ""

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start it and wait until it answers; the seconds that took. Raises Unavailable."""
        port = _free_port()
        self._disk.mkdir(parents=True, exist_ok=True)
        command = [self._fill(part, port) for part in self._command()]
        log = (self._disk / "log").open("ab")
        begun = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._surroundings(), start_new_session=True
            )
        except OSError as error:
            raise Unavailable(f"{command[0]} does not start: {error.strerror}") from error
        finally:
            log.close()
        self.url = f"http://127.0.0.1:{port}"
        while time.perf_counter() - begun < READY_S:
            if self._process.poll() is not None:
                raise Unavailable(f"it ended at once with status {self._process.returncode}")
            if self._answers():
                return time.perf_counter() - begun
            time.sleep(0.02)
        self.end(signal.SIGKILL)
        raise Unavailable(f"it did not answer within {READY_S:.0f} s")

    def end(self, number: signal.Signals) -> None:
        """Send its whole process group a signal and wait."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def bytes_on_disk(self) -> int:
        """What it has written into its folder, its log apart."""
        files = [f for f in self._disk.rglob("*") if f.is_file() and not f.is_symlink()]
        return sum(f.stat().st_size for f in files if f.name != "log")

    def cpu_s(self) -> float:
        """Processor seconds of its process so far (Linux); 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory of its process (Linux)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Unavailable("its memory cannot be read")

    def _command(self) -> tuple[str, ...]:
        return (*self.contender.command, *self.contender.durable)

    def _fill(self, part: str, port: int) -> str:
        values = {
            "python": str(self._bin / "python"),
            "bin": str(self._bin),
            "model": str(self._model),
            "gguf": str(self._model / "model.gguf"),
            "port": str(port),
            "disk": str(self._disk),
        }
        for name, value in values.items():
            part = part.replace(f"{{{name}}}", value)
        return part

    def _surroundings(self) -> Mapping[str, str]:
        """Peers get the BLAS that greenroom loads by itself: without it they are 10 times slower.

        With it comes its folder, where the libraries that it needs are.
        """
        if not self.contender.packages:
            return os.environ
        found = sorted(self._bin.parent.rglob("libmkl_rt.so*"))
        if not found:
            return os.environ
        blas = {
            "LD_PRELOAD": str(found[-1]),
            "LD_LIBRARY_PATH": str(found[-1].parent),
            "MKL_THREADING_LAYER": "INTEL",
        }
        return {**os.environ, **blas}

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/models", timeout=5):
                return True
        except OSError:
            return False


def _environment(contender: Contender, environments: Path) -> Path:
    """The folder of its programs; made if need be. Raises Unavailable."""
    if not contender.packages:
        return Path(sys.executable).parent
    folder = environments / contender.name.split(",")[0]
    programs = folder / "bin"
    if (folder / "complete").exists():
        return programs
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
    calls = [[*pip, *contender.packages]]
    if contender.bare:
        calls.append([*pip, "--no-deps", *contender.bare])
    for call in calls:
        done = subprocess.run(call, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    (folder / "complete").touch()
    return programs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
