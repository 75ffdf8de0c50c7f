"""Whatever is wrong with a spec or a space, `archdsl check` says where, exits with 1 and shows no traceback."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mutations import mutated, spots
from test_spec_fuzz import BOMBS as SPEC_BOMBS
from test_spec_fuzz import JUNK, TEXTS
from test_yaml_text import BOMBS as TEXT_BOMBS

from archdsl.cli.main import run
from archdsl.language import shipped_specs
from archdsl.language.text.render import to_yaml
from archdsl.language.text.yaml_text import parse

SPECS = {path.stem: path.read_text() for path in shipped_specs()}
LIGHT = ["swin_t", "swin_free_t", "vit_ti_16", "convnext_t", "swin_free_b_br", "convnext_swin_t"]
SPACE = """\
name: malformed
base: swin_t
choices:
  stages.*.window: [7, 14]
  stages.2.depth: {range: [4, 6], step: 2}
  defaults: [{norm: layer, act: gelu}, {norm: batch, act: relu}]
constraints: {params: {max: 100M}, latency: {max: 2.1 ms}}
objectives: {latency: {runtime: onnxruntime}, params: {}}
search: {trials: 20, start: [swin_t]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("malformed")


def check(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """`archdsl check` of a text; anything but a clean outcome fails the test."""
    path = folder / "broken.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    start = time.process_time()
    code = run(["check", str(path), "--json"])
    assert time.process_time() - start < 2
    out, err = capsys.readouterr()
    assert code in (0, 1), err
    assert "Traceback" not in err
    errors = json.loads(out)["errors"]
    assert bool(errors) == bool(code)
    for error in errors:
        assert error.keys() >= {"file", "line", "column", "rule", "message", "hint"}
        assert error["line"] >= 1
        assert error["column"] >= 1
    if code:
        assert re.match(r"\S+:\d+:\d+: ", err), err
    return code


@st.composite
def malformed(draw: st.DrawFn) -> str:
    """A shipped spec with one thing replaced by junk, lost or renamed."""
    data: Any = copy.deepcopy(parse(SPECS[draw(st.sampled_from(LIGHT))], "f").plain())
    path = draw(st.sampled_from([spot for spot in spots(data) if spot]))
    below = data
    for part in path[:-1]:
        below = below[part]
    match draw(st.integers(0, 2)):
        case 0:
            below[path[-1]] = draw(JUNK)
        case 1 if isinstance(below, dict):
            below[draw(TEXTS)] = below.pop(path[-1])
        case _:
            del below[path[-1]]
    return to_yaml(data) if data else "{}"


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=300, derandomize=True)
@given(text=malformed())
def test_a_malformed_spec_is_one_clean_error(text, folder, capsys):
    code = check(text, folder, capsys)
    assume(code)  # junk may happen to be right: only wrong ones count towards the 300
    assert code == 1


@pytest.mark.promise(1)
@pytest.mark.parametrize("seed", range(3))
def test_a_spec_with_random_edits_is_one_clean_error(seed, folder, capsys):
    rng = random.Random(seed)
    codes = [check(mutated(SPECS[rng.choice(LIGHT)], rng), folder, capsys) for _ in range(100)]
    assert sum(codes) > 50


@pytest.mark.parametrize("seed", range(2))
def test_a_space_with_random_edits_is_one_clean_error(seed, folder, capsys):
    rng = random.Random(seed)
    codes = [check(mutated(SPACE, rng), folder, capsys) for _ in range(60)]
    assert sum(codes) > 30


NUMBERS = (
    0,
    1,
    2,
    3,
    5,
    7,
    13,
    64,
    100,
    999,
    4096,
    65_536,
    65_537,
    10**6,
    10**7,
    2**31,
    2**62,
    -1,
    0.1,
    1.5,
    1e-300,
    1e300,
)


@pytest.mark.parametrize("seed", range(4))
def test_extreme_numbers_anywhere_are_refused_or_fine(seed, folder, capsys):
    rng = random.Random(seed)
    for _ in range(60):
        data: Any = parse(SPECS[rng.choice(LIGHT)], "f").plain()
        data.pop("expect", None)
        for _ in range(rng.randint(1, 3)):
            path, leaf = rng.choice(
                [(path, node) for path, node in parse(to_yaml(data), "f").scalars() if len(path) > 1]
            )
            if isinstance(leaf.value, int | float):
                below = data
                for part in path[:-1]:
                    below = below[part]
                below[path[-1]] = rng.choice(NUMBERS)
        check(to_yaml(data), folder, capsys)


WITHIN_LIMITS = """
import random, resource, sys
from pathlib import Path
from archdsl.cli.main import run
from archdsl.processes.limits import memory_in_use
from mutations import mutated
from test_malformed_cli import LIGHT, SPECS

folder = Path(sys.argv[1])
run(["check", "swin_t"])
limit = memory_in_use(resident=False) + 150 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(folder.iterdir()):
    assert run(["check", str(path)]) in (0, 1), path
rng = random.Random(11)
for number in range(100):
    text = mutated(SPECS[rng.choice(LIGHT)], rng).encode("utf-8", "surrogatepass")
    (folder / "edited.yaml").write_bytes(text)
    assert run(["check", str(folder / "edited.yaml")]) in (0, 1), text
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
@pytest.mark.promise(1, 2)
def test_bombs_and_edits_are_told_within_150_mib(tmp_path):
    texts = {**{f"text {name}": text for name, text in TEXT_BOMBS.items()}, **SPEC_BOMBS}
    assert len(texts) > 40
    for number, text in enumerate(texts.values()):
        (tmp_path / f"{number}.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHIN_LIMITS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "internal" not in done.stderr
