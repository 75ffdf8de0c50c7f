"""The rules that errors name: what each means, why it holds, and how to fix what breaks it.

The texts are in the `.toml` files beside this module, one file a subject. `docs/reference/rules.md` is made from them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from textwrap import fill, indent

SUBJECTS = ("language", "running", "searching")
"""The files with rules, in the order in which the page has them."""


@dataclass(frozen=True)
class Rule:
    """One rule.

    name: as errors print it in brackets; subject: the title of its group
    means, why, repair: a sentence or two each, in Markdown without links
    broken: a spec, or a command line that starts with `archdsl`, that breaks the rule; None where that depends on the
        machine, on data or on a library
    repaired: `broken` as it is right; None where that is nothing to look at, or takes more than a moment to run
    """

    name: str
    subject: str
    means: str
    why: str
    repair: str
    broken: str | None = None
    repaired: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """The fields by name."""
        return asdict(self)

    def text(self, width: int = 80) -> str:
        """What `archdsl explain` prints, in so many columns; examples are not wrapped."""
        parts = [fill(f"{self.name}: {self.means}", width)]
        parts += [fill(f"{head}: {words}", width) for head, words in (("Why", self.why), ("How to fix", self.repair))]
        parts += [f"{head}:\n{indent(example, '    ')}" for head, example in self._examples()]
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """The rule as a section of the page of rules."""
        parts = [f"### {self.name}", self.means, f"*Why:* {self.why}", f"*How to fix:* {self.repair}"]
        for head, example in self._examples():
            language = "text" if example.startswith("archdsl ") else "yaml"
            parts.append(f"{head}:\n\n```{language}\n{example}\n```")
        return "\n\n".join(parts)

    def _examples(self) -> list[tuple[str, str]]:
        found = (("Breaks it", self.broken), ("Repaired", self.repaired))
        return [(head, example) for head, example in found if example is not None]


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its name, in the order of the page."""
    found: dict[str, Rule] = {}
    for subject in SUBJECTS:
        data = tomllib.loads(Path(__file__).with_name(f"{subject}.toml").read_text(encoding="utf-8"))
        for name, fields in data["rules"].items():
            found[name] = Rule(name, data["title"], **{key: text.strip() for key, text in fields.items()})
    return found


def rules_page() -> str:
    """The page of all rules, as Markdown."""
    head = (
        "Every error names its rule in brackets: `[unknown-key]`. The names are stable, also in `--json`. "
        "`archdsl explain RULE` prints what stands here. Plug-ins may have rules of their own."
    )
    parts, subject = ["# Rules", head], ""
    for rule in rules().values():
        if rule.subject != subject:
            parts.append(f"## {rule.subject}")
        subject = rule.subject
        parts.append(rule.markdown())
    return "\n\n".join(parts) + "\n"
