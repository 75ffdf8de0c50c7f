"""Whether the version is the same wherever it stands, and the changelog has a section for it.

python .ci/check_release.py
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems(root: Path = ROOT) -> list[str]:
    """What has to be mended before a release."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = []
    for name, pattern in (("archdsl/__init__.py", r'__version__ = "(.*)"'), ("CITATION.cff", r"version: (\d\S*)")):
        stated = re.search(rf"^{pattern}$", (root / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        if stated is None or stated[1] != version:
            found.append(f"{name}: its version is {stated[1] if stated else 'missing'}, pyproject.toml has {version}")
    headings = re.findall(
        r"^## \[(.*?)\](?: - (\S+))?$", (root / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE
    )
    if dict(headings).get(version, "") == "":
        found.append(f"CHANGELOG.md: there is no section `## [{version}] - DATE`; [Unreleased] becomes it")
    return found


if __name__ == "__main__":
    for problem in problems():
        print(problem, file=sys.stderr)
    sys.exit(1 if problems() else 0)
