"""The wheel, in an environment that has what it says that it needs, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.server import ROOT


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """What a command prints; fails with what it said."""
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(work: Path) -> Path:
    """The wheel of what git tracks."""
    source = work / "source"
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", work, source, cwd=work)
    return next(work.glob("greenroom-*.whl"))


def environment(work: Path, wheel: Path, *more: str) -> Path:
    """The interpreter of a new environment with the wheel and the packages ``more``.

    What they need is lent by this environment, package by package, so that one which is needed and
    not declared is missing there.
    """
    run(sys.executable, "-m", "venv", "--without-pip", work / "clean", cwd=work)
    python = work / "clean" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=work)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", ask, cwd=work).strip())
    (installed,) = site.glob("greenroom-*.dist-info")
    own = metadata.Distribution.at(installed)
    extras = ["cpu"] if sys.platform == "linux" else []
    for name in _needed([*_required(own, extras), *more]):
        _lend(metadata.distribution(name), site)
    where = run(python, "-c", "import greenroom; print(greenroom.__file__)", cwd=work)
    assert where.startswith(str(site))
    return python


def _needed(requirements: Sequence[str]) -> Iterator[str]:
    """Every distribution that these need, and that those need in turn."""
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) in seen:
                continue
            seen.add((requirement.name, extra))
            if not extra:
                yield requirement.name
            distribution = metadata.distribution(requirement.name)
            waiting += [Requirement(each) for each in _required(distribution, [extra])]


def _required(distribution: metadata.Distribution, extras: Sequence[str]) -> Iterator[str]:
    for text in distribution.requires or ():
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or [""]):
            yield text


def _lend(distribution: metadata.Distribution, site: Path) -> None:
    """Link a distribution's files: a package as a whole, what lies elsewhere one by one."""
    for file in distribution.files or ():
        top, *below = file.parts
        name = file if top == ".." else Path(top)
        target, origin = site / name, Path(str(distribution.locate_file(name)))
        if target.is_symlink() or not origin.exists() or "__pycache__" in file.parts:
            continue
        if top == ".." and "bin" in below:  # programs, which name the interpreter they belong to
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(origin)
