"""The network itself: its parts, loops over the depth of its stages, and how an image goes through them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from archdsl.backends.source.classes import Form
from archdsl.backends.source.scopes import Reading, Scope
from archdsl.backends.source.text import Text, fill, literal, wrapped
from archdsl.backends.source.writer import Unit, Writer, input_names
from archdsl.ir.graph import Input, Node

PLACE = re.compile(r"stages\.(\d+)\.(downsample|blocks)")

Ramp = tuple[str, list[object]]
"""The code of a list with a number for each block, and the numbers."""


@dataclass(eq=False)
class Stage:
    """The parts of one stage. `whole`: they are a chain that hands out nothing but its end."""

    index: int
    downsample: Scope | None
    blocks: list[Scope]
    whole: bool

    @property
    def scopes(self) -> list[Scope]:
        return [*([self.downsample] if self.downsample else []), *self.blocks]


class Model:
    """The class of the network, as text."""

    def __init__(self, reading: Reading, root: Scope, name: str):
        self.reading, self.root, self.name = reading, root, name
        self.units = reading.units(root)
        self.stages = [self._stage(index, list(scopes)) for index, scopes in _by_stage(root)]
        self.ramp = self._ramp()

    def lines(self, doc: list[str]) -> list[str]:
        """The text of the class."""
        outputs = tuple(self.reading.graph.outputs.values())
        images = [node for node in self.reading.graph.live() if isinstance(node.op, Input)]
        names = input_names(images, images[0].path.rpartition(".")[2]) if images else {}
        writer = Writer("", self.reading.layouts, self.reading.functions)
        forward = self._forward(writer, names, outputs)
        gives = "Tensor" if len(outputs) == 1 else f"tuple[{', '.join(['Tensor'] * len(outputs))}]"
        made = [f"class {self.name}(nn.Module):", *(f"    {line}".rstrip() for line in doc), ""]
        if writer.buffers:
            made += [*(f"    {name}: {kind}" for name, kind in writer.buffers.items()), ""]
        made += ["    def __init__(self) -> None:", "        super().__init__()"]
        made += [line for code in self._parts() for line in wrapped(code, 8)]
        made += [line for code in writer.made for line in wrapped(_plain(code), 8)]
        params = ", ".join(["self", *(f"{name}: Tensor" for name in names.values())])
        made += ["", f"    def forward({params}) -> {gives}:"]
        return made + [line for code in forward for line in wrapped(_plain(code), 8)]

    def stage(self) -> list[str]:
        """The text of the class that holds a stage, if there are stages."""
        if not self.stages:
            return []
        down = any(stage.downsample for stage in self.stages)
        some = down and not all(stage.downsample for stage in self.stages)
        takes = ["blocks: list[nn.Module]"] + ["downsample: nn.Module" + " | None = None" * some] * down
        lines = ["class Stage(nn.Module):"]
        lines += [
            f'    """{"Make the map smaller, then apply the blocks" if down else "Blocks"}, one after the other."""',
            "",
        ]
        lines += [f"    def __init__(self, {', '.join(takes)}) -> None:", "        super().__init__()"]
        lines += ["        self.downsample = downsample" + " or nn.Identity()" * some] * down
        lines += ["        self.blocks = nn.Sequential(*blocks)"]
        if any(stage.whole for stage in self.stages):
            inner = "self.downsample(x)" if down else "x"
            lines += ["", "    def forward(self, x: Tensor) -> Tensor:", f"        return self.blocks({inner})"]
        return ["\n".join(lines)]

    def _stage(self, index: int, scopes: list[Scope]) -> Stage:
        first = scopes[0] if scopes[0].path.endswith(".downsample") else None
        blocks = scopes[1:] if first else scopes
        forms = [_form(scope) for scope in scopes]
        chain = all(len(form.inputs) == len(form.outputs) == 1 for form in forms)
        inner = {node for scope in scopes for node in scope.owners()}
        chain = chain and all(a.outputs == b.inputs for a, b in pairwise(forms))
        return Stage(index, first, blocks, chain and len(self.reading.ends(inner)[1]) == 1)

    def _forward(self, w: Writer, names: dict[Node, str], outputs: tuple[Node, ...]) -> list[Text]:
        units = self._whole_stages(self.units)
        self.reading.write(w, self.root, units, names, outputs)
        return w.body(names, outputs)

    def _whole_stages(self, units: list[Unit]) -> list[Unit]:
        """The units of the root, with a stage that is a chain as one step, and all stages if they are one."""
        held = {"stem": "self.stem", "head": "self.head"}
        owner = {scope.path: stage for stage in self.stages for scope in stage.scopes if stage.whole}
        merged: list[Unit] = []
        for unit in units:
            stage = owner.get(unit.path)
            if stage is None:
                place = re.sub(r"\.(\d+)", r"[\1]", unit.path)
                merged.append(
                    unit if unit.is_op else self._unit(unit.nodes, held.get(unit.path, f"self.{place}"), unit.path)
                )
            elif unit.path == stage.scopes[-1].path:
                nodes = tuple(node for scope in stage.scopes for node in scope.owners())
                merged.append(self._unit(nodes, f"self.stages[{stage.index}]", f"stages.{stage.index}"))
        first = next((i for i, unit in enumerate(merged) if unit.path.startswith("stages.")), 0)
        run = merged[first : first + len(self.stages)]
        chain = len(run) == len(self.stages) and [unit.path for unit in run] == [
            f"stages.{s.index}" for s in self.stages
        ]
        nodes = tuple(node for unit in run for node in unit.nodes)
        if self.stages and chain and all(a.makes == b.reads for a, b in pairwise(run)):
            whole = self._unit(nodes, "self.stages", "stages")
            if len(whole.makes) == 1:
                merged[first : first + len(run)] = [whole]
        return merged

    def _unit(self, nodes: tuple[Node, ...], held: str, path: str) -> Unit:
        return Unit(path, nodes, *self.reading.ends(nodes), held=held)

    def _parts(self) -> list[str]:
        """The lines that make the parts."""
        lines = [f"drop_path = {self.ramp[0]}  # one for each block"] if self.ramp else []
        lines += [f"self.{path} = {_made(scope)}" for path, scope in self.root.scopes.items() if path == "stem"]
        if self.stages:
            stages = [self._stage_code(stage) for stage in self.stages]
            lines.append(f"self.stages = nn.Sequential({', '.join(stages)})")
        others = [scope for path, scope in self.root.scopes.items() if path != "stem" and not PLACE.match(path)]
        return lines + [f"self.{scope.path} = {_made(scope)}" for scope in others if not scope.dissolved]

    def _stage_code(self, stage: Stage) -> str:
        runs = [list(run) for _, run in groupby(stage.blocks, key=lambda scope: _form(scope).cls)]
        before = sum(len(other.blocks) for other in self.stages[: self.stages.index(stage)])
        codes = []
        for run in runs:
            codes.append(self._run_code(run, before, alone=len(runs) == 1))
            before += len(run)
        blocks = codes[0] if len(codes) == 1 else f"[{', '.join(codes)}]"
        if len(codes) == 1 and not blocks.startswith("["):
            blocks = f"[{blocks}]"
        return f"Stage({f'downsample={_made(stage.downsample)}, ' if stage.downsample else ''}blocks={blocks})"

    def _run_code(self, run: list[Scope], before: int, *, alone: bool) -> str:
        """Blocks of one class: a loop over what differs between them."""
        forms = [_form(scope) for scope in run]
        name = forms[0].cls.name if forms[0].cls else ""
        tables = [dict(form.arguments()) for form in forms]
        said: list[tuple[str, str]] = []
        loop: dict[str, list[object]] = {}
        counted = False
        for key in tables[0]:
            values = [table[key].value for table in tables]
            rate = self._rate(key, values, before)
            if rate is not None:
                said.append((key, rate))
                counted |= len(run) > 1
            elif len(set(values)) == 1:
                said.append((key, literal(values[0])))
            elif (code := _alternating(values)) is not None:
                said.append((key, code))
                counted = True
            else:
                said.append((key, key))
                loop[key] = values
        made = f"{name}({_by_name(said)})"
        if len(run) == 1:
            return made
        code = f"{made} {_loop(loop, len(run), counted)}"
        return f"[{code}]" if alone else f"*[{code}]"

    def _rate(self, key: str, values: list[object], before: int) -> str | None:
        if key != "drop_path" or self.ramp is None:
            return None
        if len(values) == 1:
            return f"drop_path[{before}]"
        return f"drop_path[{before} + i]" if before else "drop_path[i]"

    def _ramp(self) -> Ramp | None:
        """The drop path of all blocks, where it rises evenly."""
        tables = [dict(_form(scope).arguments()) for stage in self.stages for scope in stage.blocks]
        if len(tables) < 3 or not all("drop_path" in table for table in tables):
            return None
        rates = [table["drop_path"].value for table in tables]
        end, last = rates[-1], len(rates) - 1
        if not isinstance(end, float) or end == 0:
            return None
        forms: dict[str, Callable[[int], float]] = {
            f"{literal(end)} * i / {last}": lambda i: end * i / last,
            f"{literal(end)} * (i / {last})": lambda i: end * (i / last),
        }
        for code, rate in forms.items():
            if [rate(i) for i in range(last + 1)] == rates:
                return f"[{code} for i in range({last + 1})]", rates
        return None


def _form(scope: Scope) -> Form:
    assert scope.form is not None
    return scope.form


def _by_stage(root: Scope) -> list[tuple[int, list[Scope]]]:
    found: dict[int, list[Scope]] = {}
    for path, scope in root.scopes.items():
        place = PLACE.match(path)
        if place:
            found.setdefault(int(place[1]), []).append(scope)
    return sorted(found.items())


def _made(scope: Scope) -> str:
    """The call that makes a part."""
    form = _form(scope)
    name = form.cls.name if form.cls else ""
    return f"{name}({_by_name([(key, literal(hole.value)) for key, hole in form.arguments()])})"


def _by_name(said: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{key}={value}" for key, value in said)


def _alternating(values: Sequence[object]) -> str | None:
    """`3 * (i % 2)` or `(7, 14)[i % 2]`, where two values take turns."""
    a, b = values[0], values[1]
    if len(values) < 2 or any(value != (a, b)[i % 2] for i, value in enumerate(values)):
        return None
    if isinstance(a, int) and a == 0:
        return f"{literal(b)} * (i % 2)"
    return f"({literal(a)}, {literal(b)})[i % 2]"


def _loop(loop: dict[str, list[object]], count: int, counted: bool) -> str:
    if not loop:
        return f"for {'i' if counted else '_'} in range({count})"
    names = ", ".join(loop)
    rows = list(zip(*loop.values(), strict=True))
    table = f"({', '.join(literal(row if len(row) > 1 else row[0]) for row in rows)})"
    if counted:
        return f"for i, {names if len(loop) == 1 else f'({names})'} in enumerate({table})"
    return f"for {names} in {table}"


def _plain(code: Text) -> str:
    return fill(code, lambda hole: literal(hole.value), lambda _: "")
