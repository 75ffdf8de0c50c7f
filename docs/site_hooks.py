"""What the documentation's site takes from outside `docs/`, and which decisions it lists."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the decisions, by number, as the last section."""
    decisions = sorted(Path(config.docs_dir, "decisions").glob("*.md"))
    assert config.nav is not None
    config.nav = [*config.nav, {"Decisions": [f"decisions/{path.name}" for path in decisions]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the checkout's root; their links into `docs/` become links of the site."""
    for name in PAGES:
        text = ROOT.joinpath(name).read_text(encoding="utf-8").replace("](docs/", "](").replace("](../docs/", "](../")
        files.append(File.generated(config, name, content=text))
    return files
