"""Every architecture of mlx-lm passes, or stands in the page with the call that fails."""

import re

import pytest

from tests.menagerie import architectures
from tests.sweep import PAGE, check, sweep


def rows(part: int) -> list[list[str]]:
    """The page's tables, 0 those that pass and 1 those that do not, as cells."""
    table = PAGE.read_text().split("## ")[part + 1]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_names_every_architecture_once() -> None:
    names = [row[0] for row in (*rows(0), *rows(1))]
    assert sorted(names) == sorted(architectures())
    assert len(rows(0)) >= 30
    assert all(row[2] and row[3] for row in rows(1))


def test_what_fails_is_said() -> None:
    outcome = check("deepseek_v41")
    assert re.search(r"layer 0 .* LayerCache", outcome.error)
    assert outcome.call == "spec._refuse_unknown"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_all_go_on_as_the_page_says() -> None:
    outcomes = sweep()
    assert {o.name for o in outcomes if not o.error} >= {row[0] for row in rows(0)}
