"""`archdsl check`: is a spec or a space right, and does it come to what it expects?"""

from __future__ import annotations

import click

from archdsl.cli import options
from archdsl.cli.output import print_json, say, say_lines
from archdsl.cli.parameters import SpecName
from archdsl.compiler import SpecCost, cost, identity
from archdsl.errors import ArchError, Problem, SpecError
from archdsl.language import Space, Spec, load_any
from archdsl.language.text.files import StandardInput
from archdsl.language.text.quantities import count_text


@click.command(epilog="Examples: archdsl check my_net.yaml · archdsl check specs/*.yaml --json")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC…", type=SpecName())
@click.option("--text-only", is_flag=True, help="Of a space, look up no sampler, runtime, recipe, data or weights.")
@options.overrides
@options.as_json
def check(specs: tuple[str | StandardInput, ...], text_only: bool, overrides: tuple[str, ...], as_json: bool) -> int:
    """Check specs and spaces, given by path or shipped name, and say what they cost.

    Every mistake of every file is listed, each with file:line:column. A spec needs no torch and no GPU. Of a space all
    that a search would need is looked up: sampler, runtimes, recipe, data, weights, and whether any network can keep
    to the constraints.
    """
    results: list[dict[str, object]] = []
    problems: list[Problem] = []
    code = 0
    for name in specs:
        try:
            loaded = load_any(name, set=overrides)
            if isinstance(loaded, Space):
                found, line = _space_facts(loaded, text_only=text_only)
            else:
                found, line = _spec_facts(loaded)
            results.append(found)
            if not as_json:
                say(f"{name}: fine — {line}")
        except ArchError as error:
            problems.extend(error.problems)
            code = max(code, error.exit_code)
            say_lines(error.text(), err=True)
    if as_json:
        print_json({"ok": not problems, "results": results, "errors": [problem.as_json() for problem in problems]})
    return code


def _spec_facts(spec: Spec) -> tuple[dict[str, object], str]:
    """The facts of a spec for scripts, and in words."""
    costs = cost(spec)
    _meets_expectation(spec, costs)
    words = f"{count_text(costs.params)} parameters, {count_text(costs.macs)} MACs"
    return {"spec": spec.name, "hash": identity(spec), **costs.as_json()}, words


def _space_facts(space: Space, *, text_only: bool) -> tuple[dict[str, object], str]:
    """The facts of a space for scripts, and in words."""
    if not text_only:
        from archdsl.runs.check_space import check_space

        check_space(space)
    words = f"a space of {space.num_total:_} assignments over {space.base.name}"
    return {"space": space.name, "base": space.base.name, "settings": space.num_total}, words


def _meets_expectation(spec: Spec, costs: SpecCost) -> None:
    """Raise SpecError where the spec expects other counts than it comes to."""
    problems = []
    for field in ("params", "macs"):
        expected, actual = getattr(spec.expect, field, None), getattr(costs, field)
        if expected is not None and expected != actual:
            message = f"the spec expects {field} {expected:_}, but comes to {actual:_}"
            hint = f"write `{field}: {actual:_}`, or find what changed"
            problems.append(Problem(spec.locate(f"expect.{field}"), "expect", message, hint, f"expect.{field}"))
    if problems:
        raise SpecError(problems)
