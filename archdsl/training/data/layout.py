"""Where an image folder keeps what is trained on and what is validated on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from archdsl.errors import TrainingError
from archdsl.language.text.words import listed
from archdsl.outside_text import printable
from archdsl.training.data.decode import ENDINGS
from archdsl.training.data.source import ImageSource

VAL_NAMES = ("val", "validation", "valid", "test")
"""Folders that serve as validation: the first of them that is there."""

NO_ENDING = "has no ending of an image file"
NO_FILE = "is not a regular file"
NO_CLASS = "is in no class folder"


@dataclass
class Layout:
    """What a folder holds.

    train, val: class -> its files, as paths relative to the folder, sorted; val is None where none are kept apart
    val_name:   the folder of `val`
    set_aside:  path of a file that is not used -> why
    said:       what else is there and is not used, each a sentence
    """

    train: dict[str, list[str]]
    val: dict[str, list[str]] | None = None
    val_name: str = ""
    set_aside: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def layout_of(root: Path, source: ImageSource) -> Layout:
    """List `root/train/<class>/*` and what serves as validation beside it, or else `root/<class>/*`. Names only.

    source: whose folder it is, for errors
    Raises: TrainingError: `missing-folder`, `no-images`, `classes` (validation has a class that train has not)
    """
    if not root.is_dir():
        hint = "name a folder that holds train/<class>/*.jpg, or <class>/*.jpg"
        raise source.error("missing-folder", f"there is no folder `{printable(str(root / 'train'))}`", hint)
    set_aside: dict[str, str] = {}
    if not _has_folders(root / "train"):
        splits = [name for name in ("train", *VAL_NAMES) if _has_folders(root / name)]
        train = {} if splits else _classes(root, "", set_aside)
        if not train:
            message = f"`{printable(str(root))}` holds neither train/<class>/ nor class folders with images"
            if splits:
                message = f"`{printable(str(root))}` has {listed(splits)}/ but no train/<class>/ with images"
            hint = f"each class needs its own folder with images ({', '.join(ENDINGS)})"
            raise source.error("missing-folder" if splits else "no-images", message, hint)
        return Layout(train, set_aside=set_aside)
    train = _classes(root, "train", set_aside)
    if not train:
        raise _no_images(root / "train", source)
    found = Layout(train, set_aside=set_aside)
    there = [name for name in VAL_NAMES if (root / name).is_dir()]
    for name in there:
        if found.val is not None:
            found.said.append(f"`{name}/` is not used")
            continue
        val = _classes(root, name, beside := dict[str, str]())
        if not val:
            if name != "test":
                raise _no_images(root / name, source)
            found.said.append("`test/` holds no class folders with images, so it is not used")
            continue
        if extra := sorted(set(val) - set(train)):
            names = ", ".join(map(printable, extra[:5]))
            message = f"`{printable(str(root / name))}` has classes that `train` has not: {names}"
            raise source.error("classes", message, f"every class folder of {name} must be in train too")
        found.val, found.val_name = val, name
        set_aside.update(beside)
    return found


def _no_images(folder: Path, source: ImageSource) -> TrainingError:
    hint = f"each class needs its own folder with images ({', '.join(ENDINGS)})"
    return source.error("no-images", f"`{printable(str(folder))}` holds no class folder with images", hint)


def _has_folders(folder: Path) -> bool:
    """A class may itself be called `train` or `test`: then there are images in it, not class folders."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _classes(root: Path, part: str, set_aside: dict[str, str]) -> dict[str, list[str]]:
    """Class name -> its image files relative to `root`, sorted."""
    found: dict[str, list[str]] = {}
    with os.scandir(root / part) as classes:
        for entry in sorted(classes, key=lambda each: each.name):
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                is_image = entry.name.lower().endswith(ENDINGS)
                set_aside[entry.path] = (NO_CLASS if is_image else NO_ENDING) if entry.is_file() else NO_FILE
                continue
            files = []
            with os.scandir(entry.path) as inside:
                for file in sorted(inside, key=lambda each: each.name):
                    is_image = file.name.lower().endswith(ENDINGS)
                    if is_image and file.is_file():
                        files.append(os.path.join(part, entry.name, file.name))
                    elif not file.name.startswith("."):
                        set_aside[file.path] = NO_FILE if is_image and not file.is_dir() else NO_ENDING
            if files:
                found[entry.name] = files
    return found
