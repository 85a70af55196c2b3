"""The machine that figures are from: what it is, and how busy others kept it meanwhile."""

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
PACKAGES = ("mlx", "mlx-lm", "mkl", "numpy", "aiohttp", "uvloop")


class Conditions(msgspec.Struct, frozen=True):
    """Where, when and of what a figure is; ``others_cores`` are the cores that other processes
    used on average while it was measured (None where the system does not tell)."""

    date: str
    commit: str
    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    minutes: float
    others_cores: float | None


class Load:
    """How busy the machine is from now on, this process and its ended children apart."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._own = _own_s()
        self._busy = busy_s()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._begun

    def others_cores(self, living_s: float = 0.0) -> float | None:
        """Cores that others used; ``living_s`` are processor seconds of children that still run."""
        now = busy_s()
        if now is None or self._busy is None:
            return None
        spent = _own_s() - self._own + living_s
        return max(0.0, now - self._busy - spent) / max(self.seconds, 1e-9)


def busy_s() -> float | None:
    """Seconds that all processors together have worked; None where there is no ``/proc``."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return None
    fields = [int(f) for f in counters.read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def conditions(load: Load) -> Conditions:
    """What is to be said beside figures that were measured under ``load``."""
    others = load.others_cores()
    return Conditions(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=_told("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
        packages={name: found for name in PACKAGES if (found := _version(name))},
        minutes=round(load.seconds / 60, 1),
        others_cores=None if others is None else round(others, 2),
    )


def _own_s() -> float:
    return sum(os.times()[:4])


def _processor() -> str:
    """Its name and the widest vectors that it has."""
    told = Path("/proc/cpuinfo")
    if not told.exists():
        return platform.processor() or platform.machine()
    rows = dict(r.split(":", 1) for r in told.read_text().split("\n\n")[0].splitlines() if ":" in r)
    fields = {key.strip(): value.strip() for key, value in rows.items()}
    flags = fields.get("flags", "").split()
    widest = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "")
    return " ".join(part for part in (fields.get("model name", "?"), widest) if part)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _told(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
