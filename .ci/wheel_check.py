"""Build the wheel and hold it against the repository.

A package that pyproject.toml forgets works in an editable install and is missing for everybody
else, so the wheel is built, compared with what git tracks, installed into an empty environment
and imported from a folder whose owner has an ``actors`` package too.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Folder in the repository -> package in the wheel; the longest match counts.
PACKAGES = {
    "actors/entry/": "greenroom/",
    "actors/": "greenroom/actors/",
    "runtime/": "greenroom/runtime/",
    "config/": "greenroom/config/",
}
IMPORTS = """
import greenroom, sys
from importlib.resources import files
from greenroom.runtime.catalog import load_catalog
from greenroom.runtime.layers import load_settings
import actors
assert actors.OWNER == "the user", actors
assert greenroom.__file__.startswith(sys.prefix), greenroom.__file__
assert load_catalog().entries and load_settings(environ={}).settings.server.port
print("imported", greenroom.__version__)
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run ``command`` and return what it prints; its complaint is ours."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, check=False, cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def expected() -> set[str]:
    """Paths in the wheel that git's files should become."""
    paths: set[str] = set()
    for name in run("git", "ls-files", "--", *PACKAGES).splitlines():
        if not (ROOT / name).exists():
            continue
        folder = max((f for f in PACKAGES if name.startswith(f)), key=len)
        paths.add(PACKAGES[folder] + name.removeprefix(folder))
    return paths


def main() -> None:
    """Build, compare, install, import."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        # From a copy of what git tracks: stale build folders and untracked files stay out.
        source = work / "source"
        for name in run("git", "ls-files").splitlines():
            if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_bytes((ROOT / name).read_bytes())
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", work, source)
        wheel = next(work.glob("greenroom-*.whl"))
        names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
        wanted = expected()
        for missing in sorted(wanted - names):
            print(f"not in the wheel: {missing}")
        for extra in sorted(names - wanted):
            print(f"in the wheel, not in git: {extra}")
        if names != wanted:
            sys.exit("the wheel is not what the repository holds")
        check_import(work, wheel)
    print(f"{wheel.name}: {len(names)} files, as in git")


def check_import(work: Path, wheel: Path) -> None:
    """Install without dependencies, lend those of this environment, import beside a user."""
    run(sys.executable, "-m", "venv", work / "clean")
    python = work / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    user = work / "user"
    (user / "actors").mkdir(parents=True)
    (user / "actors" / "__init__.py").write_text('OWNER = "the user"\n')
    site = run(sys.executable, "-c", "import msgspec; print(msgspec.__path__[0])").strip()
    lend = "import sys; sys.path.append(sys.argv[1])\n"
    # The current folder comes first on sys.path with -c, as it does for a user's script.
    print(run(python, "-c", lend + IMPORTS, Path(site).parent, cwd=user).strip())


if __name__ == "__main__":
    main()
