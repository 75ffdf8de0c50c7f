"""Promises about whole specs: what is valid builds, what is too large is refused before anything is allocated."""

import random
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import promises
import pytest
import torch
from packaging.requirements import Requirement

import archdsl
from archdsl.errors import ArchError
from archdsl.language import load_space, loads
from archdsl.language.architecture.lower import lower
from archdsl.passes.propagate_layouts import propagate_layouts

GIANTS = {
    "params": "stem: {type: patch, patch: 4, dim: 65536}",
    "depth": "stages: [{block: swin, depth: 4000, heads: 1, window: 2}]",
    "macs": "input: {size: 8192}\nstem: {type: patch, patch: 1, dim: 4096}",
    "window": "input: {size: 8192}\nstages: [{block: vit, depth: 1, heads: 1}]",
    "classes": "head: {type: classifier, classes: 99999999999}",
    "heads": "stages: [{block: swin, depth: 2, heads: 99999999, window: 2}]",
    "float": "stages: [{block: swin, depth: 2, heads: 1, window: 2, mlp_ratio: 1e300}]",
}

BASE = """
input: {size: 64}
stem: {type: patch, patch: 4, dim: 1024}
stages: [{block: swin, depth: 50, heads: 1, window: 2}]
head: {type: classifier, classes: 10}
"""


def with_giant(line: str) -> str:
    keys = {part.split(":")[0] for part in line.splitlines()}
    kept = [base for base in BASE.strip().splitlines() if base.split(":")[0] not in keys]
    return "\n".join(["name: giant", *line.splitlines(), *kept]) + "\n"


@pytest.mark.promise(10)
@pytest.mark.parametrize("name", GIANTS)
def test_a_giant_is_refused_quickly_in_little_memory(name: str, tmp_path: Path):
    """P10: in a child that may use 1 GiB of address space, and names the line."""
    path = tmp_path / "giant.yaml"
    path.write_text(with_giant(GIANTS[name]))

    limited = ["bash", "-c", 'ulimit -v 1048576 -t 10 && exec "$@"', "limited"]
    command = [*limited, sys.executable, "-m", "archdsl", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"{path}:") and "Traceback" not in done.stderr


@pytest.mark.promise(11)
@pytest.mark.parametrize("space_name", ["quickstart", "swin_free_imagenet"])
def test_every_valid_setting_of_a_space_compiles(space_name: str):
    """P11: what the language accepts, the compiler compiles; what it does not, it refuses with a place."""
    space = load_space(space_name)
    draw = random.Random(0)
    compiled = 0
    for _ in range(150):
        try:
            spec = space.spec(space.sample(draw))
        except ArchError:  # a setting need not be a valid spec; test_space.py checks what is said then
            continue
        graph = lower(spec)
        settled = propagate_layouts(graph)
        assert (settled.cost().params, settled.cost().macs) == (graph.cost().params, graph.cost().macs)
        compiled += 1
    assert compiled >= 100


@pytest.mark.promise(11)
def test_settings_of_the_quickstart_run_in_torch():
    """P11: 40 sampled networks give finite logits of the promised shape, for one image and for three."""
    space = load_space("quickstart")
    draw = random.Random(1)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        spec = space.spec(space.sample(draw))
        module = archdsl.build(spec).eval()
        with torch.inference_mode():
            logits, one = module(images), module(images[:1])
        assert logits.shape == (3, 12) and bool(torch.isfinite(logits).all())
        torch.testing.assert_close(logits[:1], one, rtol=1e-4, atol=1e-5)
        held = sum(p.numel() for p in module.parameters())
        assert held == archdsl.cost(spec).params


@pytest.mark.promise(12)
def test_summary_numbers_are_torchs_own():
    """P12: MACs equal what torch counts on the built module (on meta tensors: on others it misses fused attention)."""
    from torch.utils.flop_counter import FlopCounterMode

    for name in ("micro_swin", "swin_free_t_br", "vit_ti_16", "convnext_swin_t"):
        module = archdsl.build(name).eval().to("meta")
        size = archdsl.load(name).input.size
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            module(torch.empty(1, 3, *size, device="meta"))
        assert counter.get_total_flops() / 2 == archdsl.cost(name).macs


def test_a_deep_mixed_network_is_no_special_case():
    spec = loads(
        "name: mixed\ninput: {size: 64}\nstem: {type: patch, patch: 4, dim: 16}\n"
        "stages:\n"
        "  - {blocks: [{block: convnext}, {block: swin, heads: 2, window: 5, shift: true}, {block: vit, heads: 4}]}\n"
        "  - {block: vit, depth: 1, heads: 4, downsample: conv}\n"
        "  - {block: convnext, depth: 1, kernel: 3, downsample: patch_merging}\n"
        "head: {type: classifier, classes: 5}\n"
    )
    module = archdsl.build(spec)
    module(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters())


def test_every_promise_has_a_test_or_a_sentence_why_not():
    tests = promises.tests_by_promise()
    numbers = {int(row["number"]): row["remark"] for row in promises.promises()}
    assert set(tests) <= set(numbers)
    assert [number for number, remark in numbers.items() if not tests[number] and not remark] == []


def test_the_page_of_promises_is_made_from_the_tests():
    assert promises.PAGE.read_text(encoding="utf-8") == promises.page(), "python tests/promises.py"


@pytest.mark.promise(40)
def test_no_test_reaches_the_network():
    with socket.socket() as outside, pytest.raises(PermissionError, match="a test connects to"):
        outside.connect(("8.8.8.8", 53))


@pytest.mark.promise(43)
def test_dependencies_have_floors_and_pins():
    root = Path(__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (line.split("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines())
    pins = {pin.name.lower(): pin for pin in map(Requirement, filter(None, lines))}
    for text in project["dependencies"]:
        wanted = Requirement(text)
        (pin,) = pins[wanted.name.lower()].specifier
        assert pin.operator == "==" and pin.version in wanted.specifier, text
    # Older ones run code from pickles that they promise not to run, or read files outside the model's folder.
    floors = {wanted.name: wanted.specifier for wanted in map(Requirement, project["dependencies"])}
    assert "2.9.9" not in floors["torch"] and "1.20.9" not in floors["onnx"]
