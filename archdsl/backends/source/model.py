"""The class of the network: its parts, loops over the depth of its stages, and how an image goes through them."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from archdsl.backends.source.classes import Form, signature
from archdsl.backends.source.text import fill, literal
from archdsl.backends.source.tree import ModuleTree, Submodule, Unit
from archdsl.backends.source.writer import Writer, input_names
from archdsl.ir.graph import Input
from archdsl.ir.paths import stage_of

DOC_WIDTH = 110


@dataclass(eq=False)
class StageParts:
    """The parts of one stage."""

    index: int
    downsample: Submodule | None
    blocks: list[Submodule]


class NetworkClass:
    """The class of the network, as text. root: the graph, whose submodules are the parts."""

    def __init__(self, tree: ModuleTree, root: Submodule, name: str):
        self.tree, self.root, self.name = tree, root, name
        self.stages = list(_stages(root))
        self.groups = _groups(root)
        self.units = self._units()
        self.ramp = self._ramp()

    def lines(self, doc: str) -> list[str]:
        """The text of the class, its lines as long as they are."""
        graph = self.tree.graph
        outputs = tuple(graph.outputs.values())
        images = [node for node in graph.live() if isinstance(node.op, Input)]
        names = input_names(images, images[0].path.rpartition(".")[2]) if images else {}
        writer = Writer("", self.tree.layouts)
        self.tree.write(writer, self.units, names, outputs)
        body = [fill(code) for code in writer.body(names, outputs, self._end(writer))]
        own = [fill(code) for code in (*writer.tensors, *writer.init)]
        init = ["super().__init__()", *self._parts(), *own]
        said = textwrap.wrap(doc, DOC_WIDTH)
        said = [*said[:-1], f'{said[-1]}"""'] if len(said) == 1 else [*said, '"""']
        text = [f"class {self.name}(nn.Module):", f'    """{said[0]}', *(f"    {line}" for line in said[1:]), ""]
        text += ["    def __init__(self) -> None:"]
        head = signature(names.values(), 1)
        if len(outputs) > 1:
            both = len(graph.inference().outputs) == 1
            head = head.replace("-> Tensor", "-> Tensor | dict[str, Tensor]" if both else "-> dict[str, Tensor]")
        text += [*(f"        {line}" for line in init), "", f"    {head}"]
        return [*text, *(f"        {line}" for line in body)]

    def _end(self, writer: Writer) -> str:
        """The line that returns several outputs, by name: in eval mode without what only training reads. Else none."""
        graph = self.tree.graph
        if len(graph.outputs) == 1:
            return ""
        read = {name: writer.read(node, last=True).text for name, node in graph.outputs.items()}
        kept = {name: read[name] for name in graph.inference().outputs}
        given = next(iter(kept.values())) if len(kept) == 1 else _mapping(kept)
        return f"return {_mapping(read)} if self.training else {given}" if graph.training_outputs else f"return {given}"

    def _units(self) -> list[Unit]:
        """The steps of the network: a stage that is a chain of its parts is one, and all stages, if they are one."""
        units = [
            replace(unit, held=self._held(unit.child.path)) if unit.child else unit
            for unit in self.tree.units(self.root) or ()
        ]
        for stage in self.stages:
            units = self._joined(units, f"self.stages[{stage.index}].", f"self.stages[{stage.index}]")
        whole = {f"self.stages[{stage.index}]" for stage in self.stages} <= {unit.held for unit in units}
        return self._joined(units, "self.stages[", "self.stages") if whole else units

    def _held(self, path: str) -> str:
        """How code says a part: `self.head`, `self.stages[1].blocks[0]`, `self.neck[0]`, `self.heads["aux"]`."""
        word, _, name = path.partition(".")
        if word in self.groups and not _counted(self.groups[word]):
            return f"self.{word}[{json.dumps(name)}]"
        return "self." + re.sub(r"\.(\d+)", r"[\1]", path)

    def _joined(self, units: list[Unit], prefix: str, held: str) -> list[Unit]:
        """The steps whose names start with `prefix` as one, `held`, where they are a chain."""
        run = [unit for unit in units if unit.held.startswith(prefix)]
        nodes = tuple(node for unit in run for node in unit.nodes)
        reads, makes = self.tree.ends(nodes)
        if not len(reads) == len(makes) == 1 or any(a.makes != b.reads for a, b in pairwise(run)):
            return units
        whole = Unit(nodes, reads, makes, held=held)
        return [whole if unit is run[0] else unit for unit in units if unit not in run[1:]]

    def _parts(self) -> list[str]:
        """The lines that make the parts."""
        lines = [f"drop_path = {self.ramp}  # one for each block"] if self.ramp else []
        others = [part for part in self.root.children if not part.path.startswith("stages.")]
        made = {part.path: f"self.{part.path} = {_made(part)}" for part in others if "." not in part.path}
        made |= {word: f"self.{word} = {_group(parts)}" for word, parts in self.groups.items()}
        words = list(dict.fromkeys(part.path.partition(".")[0] for part in others))
        lines += [made[word] for word in words[:1]]
        if self.stages:
            lines.append(f"self.stages = nn.Sequential({', '.join(self._stage(stage) for stage in self.stages)})")
        return lines + [made[word] for word in words[1:]]

    def _stage(self, stage: StageParts) -> str:
        """The code that makes a stage."""
        before = sum(len(other.blocks) for other in self.stages[: self.stages.index(stage)])
        runs: list[str] = []
        for _, run in groupby(stage.blocks, key=lambda block: _form(block).cls):
            forms = [_form(block) for block in run]
            runs.append(self._run(forms, before))
            before += len(forms)
        alone = len(runs) == 1 and runs[0].startswith("*")
        blocks = runs[0][1:] if alone else f"[{', '.join(runs)}]"
        return f"Stage({f'downsample={_made(stage.downsample)}, ' if stage.downsample else ''}blocks={blocks})"

    def _run(self, forms: list[Form], before: int) -> str:
        """Blocks of one class: one, or a loop over what differs between them."""
        tables = [form.arguments() for form in forms]
        said: dict[str, str] = {}
        loop: dict[str, list[object]] = {}
        for key in tables[0]:
            values = [table[key].value for table in tables]
            if key == "drop_path" and self.ramp is not None:
                place = "i" if before == 0 else f"{before} + i"
                said[key] = f"drop_path[{place if len(forms) > 1 else before}]"
            elif len(set(values)) == 1:
                said[key] = literal(values[0])
            else:
                said[key] = _alternating(values) or key
                loop |= {key: values} if said[key] == key else {}
        cls = forms[0].cls
        made = f"{cls.name if cls else ''}({', '.join(f'{key}={code}' for key, code in said.items())})"
        counted = any(re.search(r"\bi\b", code) for code in said.values())
        return made if len(forms) == 1 else f"*[{made} {_loop(loop, len(forms), counted)}]"

    def _ramp(self) -> str | None:
        """The drop path of all blocks as one list, where it rises evenly."""
        tables = [_form(block).arguments() for stage in self.stages for block in stage.blocks]
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
        found = [code for code, rate in forms.items() if [rate(i) for i in range(last + 1)] == rates]
        return f"[{found[0]} for i in range({last + 1})]" if found else None


def _stages(root: Submodule) -> Iterator[StageParts]:
    """The stages, in the order in which their parts stand."""
    parts = (part for part in root.children if part.path.startswith("stages."))
    for stage, (first, *others) in groupby(parts, key=lambda part: stage_of(part.path)):
        downsample = first if first.path.endswith(".downsample") else None
        yield StageParts(int(stage.removeprefix("stages.")), downsample, others if downsample else [first, *others])


def _groups(root: Submodule) -> dict[str, dict[str, Submodule]]:
    """The parts outside the stages whose paths have a second word: by the first word and the second."""
    found: dict[str, dict[str, Submodule]] = {}
    for part in root.children:
        word, dot, name = part.path.partition(".")
        if dot and word != "stages":
            found.setdefault(word, {})[name] = part
    return found


def _counted(parts: Mapping[str, Submodule]) -> bool:
    return list(parts) == [str(index) for index in range(len(parts))]


def _group(parts: Mapping[str, Submodule]) -> str:
    """The code that makes the parts of one list or mapping."""
    if _counted(parts):
        return f"nn.ModuleList([{', '.join(map(_made, parts.values()))}])"
    return f"nn.ModuleDict({_mapping({name: _made(part) for name, part in parts.items()})})"


def _form(part: Submodule) -> Form:
    assert part.form is not None
    return part.form


def _mapping(values: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {code}' for name, code in values.items())}}}"


def _made(part: Submodule) -> str:
    """The code that makes a part."""
    return fill(_form(part).call())


def _alternating(values: Sequence[object]) -> str | None:
    """`3 * (i % 2)` or `(7, 14)[i % 2]`, where two values take turns."""
    a, b = values[:2]
    if any(value != (a, b)[i % 2] for i, value in enumerate(values)):
        return None
    return f"{literal(b)} * (i % 2)" if isinstance(a, int) and a == 0 else f"({literal(a)}, {literal(b)})[i % 2]"


def _loop(loop: dict[str, list[object]], count: int, counted: bool) -> str:
    if not loop:
        return f"for {'i' if counted else '_'} in range({count})"
    names = ", ".join(loop)
    rows = list(zip(*loop.values(), strict=True))
    table = f"({', '.join(literal(row if len(row) > 1 else row[0]) for row in rows)})"
    if counted:
        return f"for i, {names if len(loop) == 1 else f'({names})'} in enumerate({table})"
    return f"for {names} in {table}"
