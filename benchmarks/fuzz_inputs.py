"""What `benchmarks/fuzz.py` gives to archdsl: texts that users write, and files that archdsl keeps, broken.

A kind is a function from a place and a `Breaker` to the command lines of one case. It writes what they read to
`place.inputs`, or to what they may change, `place.out` and `place.cache`. A `Breaker` with a random generator breaks
what goes through it; without one everything stays valid, and every command must accept it.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from fuzz_case import DATA, TINY, Breaker, Command, Place, broken_lines, damage, made
from fuzz_foreign import images, weights
from fuzz_networks import networks
from mutations import mutated

from archdsl.cli.main import run

MIXED = """name: mixed
source: https://arxiv.org/abs/2103.14030
input: {size: 32, channels: 3}
defaults: {norm: batch, act: relu, mlp_ratio: 2}
drop_path: 0.1
stem: {type: patch, patch: 4, dim: 8}
stages:
  - {blocks: [{block: convnext, kernel: 3}, {block: swin, heads: 2, window: 2, shift: true}]}
  - {block: vit, depth: 2, heads: [1, 2], downsample: conv, dim: 16}
  - {block: swin, depth: 1, heads: 2, window: 2, downsample: {type: patch_merging, norm: layer}}
head: {type: classifier, classes: 10, pool: avg}
"""
SPACE = """name: small
base: tiny.yaml
choices:
  stages.*.window: [2, 4]
  stages.0.depth: {range: [1, 3], step: 1}
  stages.0.mlp_ratio: [2, 4]
constraints: {params: {max: 1M}}
objectives: {latency: {runtime: "null"}, params: {}}
search: {trials: 3, sampler: random, start: [tiny.yaml]}
"""
RECIPE = """name: mine
extends: quick
batch: 4
lr: 1e-3
betas: [0.9, 0.99]
label_smoothing: 0.1
schedule: cosine
warmup: 0.5
drop_path: 0.1
weight_decay: 0.1
"""


def specs(place: Place, breaker: Breaker) -> list[Command]:
    path = place.inputs / "spec.yaml"
    path.write_bytes(breaker.yaml(breaker.rng.choice((TINY, MIXED))))
    setting = breaker.rng.choice(("stages.0.window=2", "stages.*.norm=batch", "input.size=32"))
    changed = ["--set", mutated(setting, breaker.rng)] if breaker.chance(0.3) else []
    more = [option for option in ("--json", "--graph") if breaker.chance(0.3)]
    return [["check", str(path), *changed], ["show", str(path), *changed, *more]]


def spaces(place: Place, breaker: Breaker) -> list[Command]:
    path = place.inputs / "space.yaml"
    (place.inputs / "tiny.yaml").write_text(TINY)
    path.write_bytes(breaker.yaml(SPACE))
    prepare = ["search", str(path), "--out", str(place.out), "--workers", "0", "--trials", "2"]
    return [["check", str(path)], ["show", str(path), "--json"], prepare]


def recipes(place: Place, breaker: Breaker) -> list[Command]:
    recipe, spec = place.inputs / "recipe.yaml", place.inputs / "tiny.yaml"
    spec.write_text(TINY)
    recipe.write_bytes(breaker.yaml(RECIPE))
    data = mutated(DATA, breaker.rng) if breaker.chance(0.2) else DATA
    train = ["train", str(spec), "--data", data, "--recipe", str(recipe), "--out", str(place.out)]
    return [[*train, "--epochs", "1", "--batch", "4"]]


def journals(place: Place, breaker: Breaker) -> list[Command]:
    rng, space = breaker.rng, place.inputs / "space.yaml"
    space.write_text(SPACE)
    (place.inputs / "tiny.yaml").write_text(TINY)
    shutil.copytree(made(place, "searched", "search", str(space)), place.out)
    names = ("study.journal",) * 4 + (
        "study.journal.turns", "study.journal.torn", "study.journal.lock", "search.json", "trainings.jsonl", "workers",
        "workers/1.json", "workers/1.log", "front.csv", "front", "report.html",
    )  # fmt: skip
    for name in rng.sample(names, rng.randint(1, 2)) if breaker.active else ():
        path = place.out / name
        if not os.path.lexists(path.parent):
            path.parent.mkdir()
        if not path.parent.is_dir():
            continue
        if not path.is_dir():
            damage(path, place, breaker)
        elif rng.random() < 0.5:
            shutil.rmtree(path)
            path.symlink_to(place.victim.parent)
    more = ["--trials", str(rng.choice((3, 4)))]
    more += rng.choice(([], ["--fresh"], ["--no-confirm"], ["--json"])) if breaker.active else []
    search = ["search", str(space), "--out", str(place.out), *more]
    worker = ["worker", "--storage", str(place.out / "study.journal"), "--out", str(place.out)]
    return [worker, search] if rng.random() < 0.3 else [search]


def caches(place: Place, breaker: Breaker) -> list[Command]:
    rng, valid = breaker.rng, place.root / "valid" / "cache"
    space = place.inputs / "space.yaml"
    space.write_text(SPACE)
    (place.inputs / "tiny.yaml").write_text(TINY)
    if not valid.exists():
        made(place, "searched", "search", str(space))
        assert run(["cache", "export", str(place.cache / "timings.jsonl")]) == 0
        shutil.copytree(place.cache, valid)
    shutil.rmtree(place.cache)
    shutil.copytree(valid, place.cache)
    export, path = place.inputs / "timings.jsonl", place.cache / "timings.sqlite"
    os.replace(place.cache / "timings.jsonl", export)
    if breaker.chance(0.5):
        export.write_bytes(broken_lines(export.read_bytes(), breaker))
    if breaker.chance(0.3):
        _changed_rows(path, rng)
    elif breaker.chance(0.7):
        damage(
            path.with_name(rng.choice(("timings.sqlite",) * 3 + ("timings.sqlite-wal", "timings.lock"))), place, breaker
        )
    search = ["search", str(space), "--out", str(place.out), "--trials", "2"]
    cache = [["ls"], ["ls", "--json"], ["import", str(export)], ["export", "-"], ["prune", "--damaged"]]
    commands = [*(["cache", *words] for words in cache), search]
    return rng.sample(commands, 3)


def _changed_rows(path: Path, rng: random.Random) -> None:
    """Change cells of the tables, or the tables."""
    cells = ("x'ff00'", "NULL", "1e999", "''", "body || '}'", "replace(body, ':', ';')", "char(27)", "zeroblob(9)")
    with sqlite3.connect(path) as connection:
        for _ in range(rng.randint(1, 3)):
            column = rng.choice(("key", "network", "fingerprint", "build", "date", "body", "checksum"))
            statement = rng.choice(
                (
                    f"UPDATE OR IGNORE timings SET {column} = {rng.choice(cells)}",
                    f"UPDATE timings SET body = json_set(body, '$.median_ms', {rng.choice(('-1', '1e308', 'NULL'))})",
                    f"PRAGMA user_version = {rng.choice((0, 1, 2, 99, -1))}",
                    "DROP TABLE repeats",
                    "PRAGMA application_id = 7",
                    "ALTER TABLE timings DROP COLUMN date",
                )
            )
            try:
                connection.execute(statement)
            except sqlite3.Error:
                continue
    connection.close()


def builds(place: Place, breaker: Breaker) -> list[Command]:
    rng, spec = breaker.rng, place.inputs / "tiny.yaml"
    spec.write_text(TINY)
    train = ["train", str(spec), "--data", DATA, "--recipe", "quick", "--epochs", "1", "--batch", "4"]
    trained = made(place, "trained", *train)
    built = made(place, "built", "build", str(spec), "--emit", "torch")
    which, resumes = rng.choice((trained, built)), rng.random() < 0.4
    folder = place.out if resumes else place.inputs / "folder"
    shutil.copytree(trained if resumes else which, folder)
    files = sorted(folder.iterdir())
    names = [path.name for path in files if path.suffix != ".csv"]
    for name in rng.sample(names, rng.randint(1, 2)) if breaker.active else ():
        damage(folder / name, place, breaker)
    if resumes:
        return [[*train, "--out", str(folder), "--resume"]]
    if breaker.chance(0.3):  # it stands where something is to be built
        shutil.copytree(
            folder, place.out, symlinks=True, ignore=lambda at, names: [n for n in names if (Path(at) / n).is_fifo()]
        )
    return [["build", str(folder), "--emit", rng.choice(("torch", "onnx")), "-o", str(place.out)]]


KINDS: dict[str, Callable[[Place, Breaker], list[Command]]] = {
    kind.__name__: kind for kind in (specs, spaces, recipes, weights, images, journals, caches, builds, networks)
}
