"""The promises of the package as a whole."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import greenroom

ROOT = Path(__file__).resolve().parent.parent
_SOURCES = [*ROOT.glob("runtime/**/*.py"), *ROOT.glob("actors/**/*.py")]
_PURE = ["plan", "prefix", "segments", "settings", "catalog"]
_KERNEL = ["mailbox", "ref", "actor", "system", "supervise", "channel", "clock"]


def _imports(path: Path) -> set[str]:
    """Modules that ``path`` imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def test_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert greenroom.__version__ == project["version"]


def test_the_runtime_does_not_know_the_actors() -> None:
    for path in ROOT.glob("runtime/*.py"):
        assert not any(name.startswith("greenroom.actors") for name in _imports(path)), path


def test_pure_policies_import_no_machinery() -> None:
    for path in (ROOT / "runtime" / f"{name}.py" for name in _PURE):
        if path.exists():
            tops = {name.partition(".")[0] for name in _imports(path)}
            assert tops.isdisjoint({"mlx", "mlx_lm", "asyncio", "aiohttp"}), path


def test_the_actor_kernel_knows_no_llm() -> None:
    for path in (ROOT / "runtime" / f"{name}.py" for name in _KERNEL):
        if path.exists():
            names = _imports(path)
            assert not any(name.startswith(("mlx", "numpy", "transformers")) for name in names)
            ours = {n.rpartition(".")[2] for n in names if n.startswith("greenroom.runtime.")}
            assert ours.isdisjoint({"loader", "codec", "stage", "text", "segments"}), path


def test_only_sources_are_tracked() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in tracked if (ROOT / name).is_file()}
    assert {name: size for name, size in sizes.items() if size > 1 << 20} == {}


@pytest.mark.parametrize("path", _SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_is_much_longer_than_a_screenful_of_pages(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_checkers_see_the_package_that_is_installed() -> None:
    for link in (ROOT / ".src" / "greenroom").iterdir():
        assert link.is_symlink(), link
        assert link.exists(), link


def test_a_users_own_folders_do_not_collide(tmp_path: Path) -> None:
    for name in ("actors", "runtime", "config"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'the user'\n")
    code = (
        "import actors, runtime, config, greenroom.actors, greenroom.runtime, greenroom.config;"
        "print(actors.OWNER, runtime.OWNER, config.OWNER, greenroom.actors is not actors)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "the user the user the user True"


def test_skip_check_lets_only_hardware_and_system_pass(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    case = '<testcase classname="t" name="{}"><skipped type="pytest.skip" message="{}"/></testcase>'
    check = [sys.executable, str(ROOT / ".ci" / "skip_check.py"), str(report)]
    report.write_text(f"<s>{case.format('a', 'needs Metal')}</s>")
    assert subprocess.run(check, check=False).returncode == 0
    report.write_text(f"<s>{case.format('a', 'needs Metal')}{case.format('b', 'later')}</s>")
    done = subprocess.run(check, check=False, capture_output=True, text=True)
    assert (done.returncode, "t::b: later" in done.stdout) == (1, True)
