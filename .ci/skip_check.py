"""Fail when a test was skipped for a reason that is not about the hardware or the system.

A skip is how a suite stops testing without anyone noticing. Reads pytest's JUnit reports.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

EXPECTED = (
    "needs Chromium",
    "needs Metal",
    "needs CUDA",
    "needs a GPU",
    "needs macOS",
    "needs Linux",
)


def unexpected(report: Path) -> list[str]:
    """The skips in ``report`` that nobody expects, one line each."""
    found: list[str] = []
    for case in ElementTree.parse(report).iter("testcase"):
        for skipped in case.iter("skipped"):
            reason = skipped.get("message", "")
            if skipped.get("type") == "pytest.skip" and not reason.startswith(EXPECTED):
                found.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    return found


def main() -> int:
    """Print unexpected skips; 1 if there are any."""
    found = [line for report in sys.argv[1:] for line in unexpected(Path(report))]
    for line in found:
        print(f"unexpected skip: {line}")
    print(f"skips: {len(found)} unexpected")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
