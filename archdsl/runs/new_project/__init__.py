"""`init`: the folder of a new project, which works as it is: a spec, a space, an editor's settings and a README."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from archdsl.errors import ArchError
from archdsl.files import as_json, claim_folder, write_file
from archdsl.language.space.schema import schema
from archdsl.training.recipe import recipe_schema

SPEC, SPACE, README = "my_net.yaml", "my_space.yaml", "README.md"
IGNORED = ".gitignore"
_COPIES = {SPEC: SPEC, SPACE: SPACE, README: README, IGNORED: "gitignore.txt"}
"""A project's file -> the file beside this module that it is a copy of."""
_SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "schemas/spec.json": lambda: schema("spec"),
    "schemas/space.json": lambda: schema("space"),
    "schemas/recipe.json": recipe_schema,
}
_EDITOR = {"yaml.schemas": {"schemas/spec.json": SPEC, "schemas/space.json": SPACE}}
"""For files without the first line that names their schema."""


def make_project(path: str | os.PathLike[str]) -> list[str]:
    """Make a project in a folder that is new or empty.

    Returns: the files that were written, relative to the folder
    Raises: ArchError (`output-folder`) when the folder is a file or a link, or has anything in it; `cannot-write`
    """
    folder = Path(path)
    if not folder.is_symlink() and (there := _names_in(folder)):
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        message = f"{folder} is not empty: it has {there[0]}{more}"
        raise ArchError.at("DIR", str(path), "output-folder", message, "name a new folder, or an empty one")
    claim_folder(folder, README)
    texts = {name: Path(__file__).with_name(copied).read_text(encoding="utf-8") for name, copied in _COPIES.items()}
    texts |= {name: as_json(made()) for name, made in _SCHEMAS.items()}
    texts[".vscode/settings.json"] = as_json(_EDITOR)
    for name, text in texts.items():
        try:
            (folder / name).parent.mkdir(exist_ok=True)
        except OSError as error:
            message = f"{folder / name} cannot be written: {error.strerror or error}"
            raise ArchError.at("DIR", str(path), "cannot-write", message, "choose another folder") from error
        write_file(folder / name, text)
    return sorted(texts)


def _names_in(folder: Path) -> list[str]:
    """What is in a folder; nothing where it is none or cannot be listed, which `claim_folder` tells."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
