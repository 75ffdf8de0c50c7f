"""Optuna's private parts are known to one module: the façade of a study's storage."""

from __future__ import annotations

import ast
from pathlib import Path

import archdsl

PACKAGE = Path(archdsl.__file__).parent
PRIVATE = {"_storage", "_study_id", "_trial_id", "_backend", "_rdb", "scoped_session"}
"""Attributes of Optuna's objects that its documentation does not name."""
FACADE = PACKAGE / "study" / "storage" / "store.py"


def private_parts(path: Path) -> set[str]:
    """What a module takes of the private parts of Optuna: attributes of anything but `self`, `getattr`, imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id="self")):
                pass
            case ast.Attribute(attr=name) if name in PRIVATE:
                found.add(name)
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]) if name in PRIVATE:
                found.add(name)
            case ast.ImportFrom(module=str(module)) if module.startswith("optuna") and "._" in module:
                found.add(module)
    return found


def test_one_module_uses_the_private_parts_of_optuna() -> None:
    users = {path for path in PACKAGE.rglob("*.py") if private_parts(path)}
    assert users == {FACADE}
