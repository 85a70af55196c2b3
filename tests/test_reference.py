"""The reference is what the docstrings say, and their examples are true."""

import ast
import doctest
import re
import subprocess
import sys
from types import ModuleType

import pytest

from greenroom.actors import shapes, tools
from tests.server import ROOT

GUIDE = (ROOT / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def test_the_page_is_up_to_date() -> None:
    check = [sys.executable, str(ROOT / ".ci" / "reference.py"), "--check"]
    assert subprocess.run(check, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("module", [shapes, tools], ids=lambda m: m.__name__)
def test_examples(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    "block", re.findall(r"^```python\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
)
def test_the_guides_programs_are_programs(block: str) -> None:
    compile(block, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
