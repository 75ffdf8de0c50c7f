"""The examples in docstrings run, and what a user calls has one."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import archdsl
from archdsl import plugins
from archdsl.parts import part

PACKAGE = Path(archdsl.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
CALLED = {
    "archdsl": [name for name in archdsl.__all__ if name != "__version__"],
    "archdsl.backends.trt.options": ["EngineOptions"],
    "archdsl.builds.config": ["BuildConfig"],
    "archdsl.builds.write": ["write_build"],
    "archdsl.errors": ["ArchError", "Problem"],
    "archdsl.evaluators": ["TrainEvaluator", "measure_agreement"],
    "archdsl.ir.graph": ["Graph"],
    "archdsl.language": [
        "Space",
        "Spec",
        "Stage",
        "load_any",
        "load_space",
        "loads",
        "loads_space",
        "shipped_spaces",
        "shipped_specs",
    ],
    "archdsl.language.space.choices": ["Choice"],
    "archdsl.language.space.counting": ["count"],
    "archdsl.language.space.schema": ["schema"],
    "archdsl.latency": ["Timing", "TimingCache", "compare"],
    "archdsl.passes.runner": ["run_passes"],
    "archdsl.runs.search": ["SearchOptions", "SearchResult"],
    "archdsl.runtimes.export": ["artefact_of"],
    "archdsl.runtimes.registry": ["runtime"],
    "archdsl.runtimes.target": ["ResolvedTarget", "Target", "resolve"],
    "archdsl.study.front.pareto": ["Front"],
    "archdsl.study.tabular": ["Table"],
    "archdsl.training": ["Accuracy", "Recipe", "parse_recipe"],
    "archdsl.weights.reading": ["read_weights"],
}
"""What a user calls, and what those calls take and give, by the module that it is imported from. `archdsl.plugins` has
its examples together: a family of parts."""


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that examples register are known to them alone."""
    part.parts("block")  # plug-ins register now, not into the copy
    monkeypatch.setattr(part, "_REGISTRY", {kind: dict(known) for kind, known in part._REGISTRY.items()})


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str) -> None:
    found = doctest.testmod(import_module(module), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in CALLED.items() for name in names])
def test_what_a_user_calls_has_an_example(module: str, name: str) -> None:
    assert ">>> " in (getattr(import_module(module), name).__doc__ or "")


def test_the_examples_of_a_plugin_use_all_that_it_may_import() -> None:
    (examples,) = doctest.DocTestFinder(recurse=False).find(plugins)
    source = "".join(example.source for example in examples.examples)
    assert not [name for name in plugins.__all__ if name not in source]
