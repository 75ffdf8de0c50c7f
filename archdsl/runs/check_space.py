"""`check` of a space: everything that a search would stumble over later, found before anything runs."""

from __future__ import annotations

from archdsl.compiler import cost
from archdsl.errors import ArchError, Problem, StudyError
from archdsl.language import Space
from archdsl.language.text.quantities import exact_text
from archdsl.runs.search_parts import MOST_COUNTED, Problems, SearchParts, fingerprints_of, targets_of
from archdsl.study.latency_evaluator import LatencyEvaluator
from archdsl.study.objectives import OBJECTIVES
from archdsl.study.proposals.samplers import settled
from archdsl.study.scoring import violation


def check_space(space: Space) -> None:
    """Look up what the space names: sampler, runtimes, recipe, data, weights; and whether any network can be found.

    Raises: ArchError with all problems, each at its place in the space's file
    """
    found = Problems()
    found.of(lambda: settled(space.search.sampler, space.search.trials, space.locate("search.sampler")))
    parts = found.of(lambda: SearchParts(space, (), None))
    if parts is not None:
        found.of(parts.fixed)
        found.of(parts.halving)
    elif space.objectives.targets:
        targets = found.of(lambda: targets_of(space, None)) or {}
        measuring = {label: LatencyEvaluator(target) for label, target in targets.items()}
        found.of(lambda: fingerprints_of(space, measuring, None))
    found.of(lambda: _some_network_fits(space))
    found.raise_all()


def _some_network_fits(space: Space) -> None:
    """Errors: StudyError where a bound on parameters or MACs excludes every network of a small space"""
    bounds = {
        name: bound for name in ("params", "macs") if (bound := getattr(space.constraints, name)) is not None
    }  # fmt: skip
    if not bounds or space.num_total > MOST_COUNTED:
        return
    values: dict[str, list[int]] = {name: [] for name in bounds}
    for assignment in space.iterate():
        try:
            costs = cost(space.spec(assignment, check=False))
        except ArchError:
            continue  # an assignment that gives no network
        counts = {"params": costs.params, "macs": costs.macs}
        if all(violation(counts[name], bound) <= 0 for name, bound in bounds.items()):
            return
        for name in bounds:
            values[name].append(counts[name])
    problems = []
    for name, seen in values.items():
        if not seen or any(violation(each, bounds[name]) <= 0 for each in seen):
            continue
        reach = f"{exact_text(min(seen))} to {exact_text(max(seen))}"
        message = f"no network of the space keeps to this: their {OBJECTIVES[name].name} are {reach}"
        problems.append(
            Problem(space.locate(f"constraints.{name}"), "infeasible", message, "widen the bound, or the choices")
        )
    if not problems and any(values.values()):
        message = "no network of the space keeps to all constraints at once"
        problems.append(Problem(space.locate("constraints"), "infeasible", message, "widen one of them"))
    if problems:
        raise StudyError(problems)
