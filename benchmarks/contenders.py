"""The servers that are compared: what each is, how it is installed and started, and ended."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from benchmarks.weights import Weights

ENDS = ("SIGTERM", "SIGKILL")
READY_S = 180.0
"""How long a server may take until it answers."""
ENGINE = ("mlx[cpu]==0.32.4", "mkl==2026.2.0")
"""The same MLX and the same BLAS for every server that runs on MLX."""


class Unavailable(Exception):
    """A contender cannot run here; the message says why."""


class Contender(msgspec.Struct, frozen=True):
    """One server with one set of flags.

    ``packages`` go into the virtual environment ``environment``, those of ``bare`` without what
    they depend on; none: this environment. In ``command`` are filled in: ``{python}`` and ``{bin}``
    of that environment, ``{model}`` (a folder), ``{gguf}`` and ``{gguf_float32}``, ``{port}``, and
    ``{disk}``, a folder that outlives the process. ``model_id`` is what requests call the model.
    ``survives``: which ends of its process its memory outlives. ``mlx``: it computes with MLX.
    Those of a ``later`` tier are measured when the others have been.
    """

    name: str
    command: tuple[str, ...]
    weights: str
    model_id: str = "{model}"
    environment: str = ""
    packages: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    survives: tuple[str, ...] = ()
    mlx: bool = True
    later: bool = False


_FLOAT32 = "float32"
_GREENROOM = ("{python}", "-m", "greenroom", "serve", "--home", "{disk}", "--port", "{port}")
_MLX_LM = ("{python}", "-m", "mlx_lm", "server", "--model", "{model}", "--port", "{port}")
_MLX_LM_PACKAGES = (*ENGINE, "mlx-lm==0.32.2")
_VLLM_MLX = ("{bin}/vllm-mlx", "serve", "{model}", "--port", "{port}")
_VLLM_PACKAGES = (
    *ENGINE,
    *("mlx-lm==0.31.3", "transformers>=5", "fastapi", "uvicorn", "starlette", "psutil", "requests"),
    *("prometheus-client", "jsonschema", "lm-format-enforcer", "llguidance", "pytz", "tabulate"),
    *("pillow", "numpy", "pyyaml", "tqdm", "mcp", "python-multipart"),
)
# Its text models need neither torchvision nor gradio nor OpenCV, which it asks for.
_VLLM_BARE = ("vllm-mlx==0.6.0", "mlx-vlm==0.7.10", "mlx-embeddings==0.1.0")
_LLAMA = ("{python}", str(Path(__file__).with_name("llama_server.py")))
_LLAMA_PACKAGES = ("xllamacpp==2026.10.11549",)

CONTENDERS = {
    c.name: c
    for c in (
        Contender("greenroom", _GREENROOM, _FLOAT32, "default", survives=ENDS),
        # Smaller chunks: cold prompts are sooner on a CPU, and who decodes waits less.
        Contender(
            "mlx-lm-best",
            (*_MLX_LM, "--prefill-step-size", "256", "--prompt-cache-size", "64"),
            _FLOAT32,
            "default_model",
            "mlx-lm",
            _MLX_LM_PACKAGES,
        ),
        Contender(
            "vllm-mlx-best",
            (
                *(*_VLLM_MLX, "--continuous-batching", "--enable-prefix-cache"),
                *("--prefill-step-size", "256", "--ssd-cache-dir", "{disk}/ssd"),
            ),
            _FLOAT32,
            environment="vllm-mlx",
            packages=_VLLM_PACKAGES,
            bare=_VLLM_BARE,
            survives=ENDS[:1],  # it saves its cache when it is asked to stop
        ),
        Contender(
            "llama.cpp",
            (*_LLAMA, "{gguf}", "{port}", str(os.cpu_count())),
            "Q4_1, as in the GGUF file",
            "default",
            "llama.cpp",
            _LLAMA_PACKAGES,
            mlx=False,
        ),
        Contender(
            "mlx-lm", _MLX_LM, _FLOAT32, "default_model", "mlx-lm", _MLX_LM_PACKAGES, later=True
        ),
        Contender(
            "vllm-mlx",
            _VLLM_MLX,
            _FLOAT32,
            environment="vllm-mlx",
            packages=_VLLM_PACKAGES,
            bare=_VLLM_BARE,
            later=True,
        ),
        Contender(
            "llama.cpp-float32",
            (*_LLAMA, "{gguf_float32}", "{port}", str(os.cpu_count())),
            "float32 in a GGUF file",
            "default",
            "llama.cpp",
            _LLAMA_PACKAGES,
            mlx=False,
            later=True,
        ),
    )
}


class Running:
    """A contender's process on ``disk``, which it keeps when it is ended and started again."""

    def __init__(
        self, contender: Contender, weights: Weights, disk: Path, environments: Path
    ) -> None:
        self.contender = contender
        self.weights = weights
        self._disk = disk
        self._bin = _environment(contender, environments)
        self._process: subprocess.Popen[bytes] | None = None
        self.model_id = self._fill(contender.model_id, 0)
        self.url = ""
        if "{gguf" in " ".join(contender.command) and weights.lacking:
            raise Unavailable(weights.lacking)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> float:
        """Start it and wait until it answers; the seconds that took. Raises Unavailable."""
        port = _free_port()
        self._disk.mkdir(parents=True, exist_ok=True)
        command = [self._fill(part, port) for part in self.contender.command]
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
                status = self._process.returncode
                raise Unavailable(f"it ended at once with status {status}: {self._last_words()}")
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

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def bytes_on_disk(self) -> int:
        """What is in its folder, its log apart."""
        files = [f for f in self._disk.rglob("*") if f.is_file() and f.name != "log"]
        return sum(f.stat().st_size for f in files if (self._disk / "models") not in f.parents)

    def bytes_written(self) -> int:
        """What its processes have handed to the system for writing so far (Linux)."""
        counters = (_read(pid, "io") for pid in self._pids())
        return sum(int(row.split()[1]) for c in counters for row in c if row.startswith("wchar"))

    def cpu_s(self) -> float:
        """Processor seconds of its processes so far (Linux); 0 once it has ended."""
        ticks = 0
        for pid in self._pids():
            for row in _read(pid, "stat"):
                fields = row.rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Memory of its processes (Linux)."""
        states = (_read(pid, "status") for pid in self._pids())
        rows = [row for state in states for row in state if row.startswith("VmRSS:")]
        return sum(int(row.split()[1]) * 1024 for row in rows)

    def _pids(self) -> Iterator[str]:
        """Its processes: all of its session."""
        if self._process is None:
            return
        for folder in Path("/proc").glob("[0-9]*"):
            for row in _read(folder.name, "stat"):
                if int(row.rpartition(")")[2].split()[3]) == self._process.pid:
                    yield folder.name

    def _last_words(self) -> str:
        """The last line of its log."""
        lines = (self._disk / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _fill(self, part: str, port: int) -> str:
        values = {
            "python": str(self._bin / "python"),
            "bin": str(self._bin),
            "model": str(self.weights.folder),
            "gguf": str(self.weights.gguf),
            "gguf_float32": str(self.weights.gguf_float32),
            "port": str(port),
            "disk": str(self._disk),
        }
        for name, value in values.items():
            part = part.replace(f"{{{name}}}", value)
        return part

    def _surroundings(self) -> Mapping[str, str]:
        """Peers get the BLAS that greenroom loads by itself: without it they are 10 times slower.

        With it comes its folder, where the libraries that it needs are. Whatever they keep in
        the user's home, they keep on their disk.
        """
        if not self.contender.packages:
            return os.environ
        found = sorted(self._bin.parent.rglob("libmkl_rt.so*"))
        home = {"HOME": str(self._disk)}
        if not found:
            return {**os.environ, **home}
        blas = {
            "LD_PRELOAD": str(found[-1]),
            "LD_LIBRARY_PATH": str(found[-1].parent),
            "MKL_THREADING_LAYER": "INTEL",
            "KMP_BLOCKTIME": "1",
        }
        return {**os.environ, **home, **blas}

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
    folder = environments / contender.environment
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


def _read(pid: str, name: str) -> list[str]:
    """The lines that the system tells of a process; none once it has gone."""
    try:
        return Path("/proc", pid, name).read_text().splitlines()
    except OSError:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
