"""Reading what stands behind the stages: the features, the neck, and one head or several by name."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from archdsl.language.architecture.model import Features, NamedHead, spelt_out
from archdsl.language.architecture.part_reader import PartReader
from archdsl.language.text import limits
from archdsl.language.text.explain import Complaints, explain
from archdsl.language.text.node import Path, YamlNode, is_finite
from archdsl.language.text.render import shown
from archdsl.language.text.words import listed, quoted
from archdsl.parts.part import Head, Neck, Part, PartKind
from archdsl.suggestions import did_you_mean

MAIN = "logits"
"""The head whose output is judged."""
_HEAD_KEYS = ("tap", "train")
"""Keys of one of several heads that are not its part's."""
_OUTPUT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z", re.ASCII)
_TORCH = """T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double
dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu items keys
load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters pop
register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty train training type update values xpu zero_grad"""
RESERVED = frozenset({"image", *keyword.kwlist, *_TORCH.split()})
"""What no output may be called: the input, words of Python, and what a module of torch calls its own."""
_FEATURE = re.compile(r"features\.[0-9]{1,4}\Z", re.ASCII)


def read_model(cls: type[BaseModel], node: YamlNode, complaints: Complaints, path: Path, what: str) -> Any:
    """One plain pydantic model from a mapping; None (and complaints) when it is wrong."""
    if not node.is_map:
        name = f"`{path[-1]}`" if path else what
        complaints.add(node.mark, "wrong-type", f"{name} must be a mapping, but got {shown(node.plain())}", None, path)
        return None
    before = len(complaints)
    for where, leaf in node.scalars(path):
        if not is_finite(leaf.value):
            complaints.must_be("a finite number", leaf, where, rule="wrong-value")
    if len(complaints) > before:
        return None
    try:
        return cls.model_validate_json(json.dumps(node.plain()))
    except ValidationError as error:
        homes = {key: (value, (*path, key)) for key, value in node.value.items()}
        errors = error.errors(include_url=False, include_input=False)
        explain(complaints, errors, homes, node, path, cls=cls, what=what)
        return None


class EndsReader:
    """Reads the end of one spec; problems go to `complaints`. part: reads the spec's part of a kind"""

    def __init__(
        self,
        tree: YamlNode,
        complaints: Complaints,
        parts: PartReader,
        part: Callable[[PartKind], Part | None],
    ):
        self.tree, self.complaints, self.parts, self.part = tree, complaints, parts, part

    def read(self, depths: Sequence[int] | None) -> dict[str, Any] | None:
        """`features`, `neck`, `head` and `heads` of the spec; None (and complaints) when anything is wrong.

        depths: the number of blocks of each stage; None where that is not known
        """
        before = len(self.complaints)
        features, neck = self._features(depths), self._neck()
        if self.tree.get("heads") is None:
            head = cast(Head | None, self.part("head"))
            heads: list[NamedHead] = []
        else:
            heads = self._heads(depths, features)
            head = next((each.head for each in heads if each.name == MAIN), None)
        if len(self.complaints) > before or head is None:
            return None
        return {"features": features, "neck": tuple(neck), "head": head, "heads": tuple(heads)}

    def _features(self, depths: Sequence[int] | None) -> Features | None:
        node = self.tree.get("features")
        if node is None or node.value is None:
            return None
        found = cast(Features | None, read_model(Features, node, self.complaints, ("features",), "`features`"))
        taps = node.get("taps") if node.is_map else None
        if found is not None and found.taps is not None and taps is not None:
            for index, tap in enumerate(found.taps):
                self._check_tap(tap, taps.value[index], ("features", "taps", index), depths)
            if len(set(found.taps)) < len(found.taps):
                self.complaints.add(
                    taps.mark, "duplicate-key", "each tap may be named once", None, ("features", "taps")
                )
        return found

    def _check_tap(self, tap: str, node: YamlNode, path: Path, depths: Sequence[int] | None) -> None:
        """Complain where a tap is none of the spec's parts."""
        if depths is None:
            return
        stages = [f"stages.{index}" for index in range(len(depths))]
        blocks = [f"{stage}.blocks.{i}" for stage, depth in zip(stages, depths, strict=True) for i in range(depth)]
        if tap not in ("stem", *stages, *blocks):
            message = f"there is no part {quoted(tap)} to take a map from"
            hint = did_you_mean(tap, [*stages, "stem"]) or "`stem`, a stage (`stages.2`) or a block of it"
            self.complaints.add(node.mark, "unknown-name", message, hint, path)

    def _neck(self) -> list[Neck]:
        node = self.tree.get("neck")
        if node is None or node.value is None:
            return []
        if not node.is_list or len(node.value) > limits.MAX_STAGES:
            self.complaints.must_be(f"a list of at most {limits.MAX_STAGES} parts", node, ("neck",))
            return []
        found = [self.parts.one("neck", each, ("neck", index)) for index, each in enumerate(node.value)]
        return [cast(Neck, part) for part in found if part is not None]

    def _heads(self, depths: Sequence[int] | None, features: Features | None) -> list[NamedHead]:
        """Each head in the order of the file, the main one first."""
        node = self.tree.get("heads")
        assert node is not None
        if self.tree.get("head") is not None:
            message, hint = "`head` and `heads` do not go together", f"write the head as `heads: {{{MAIN}: …}}`"
            self.complaints.add(self.tree.key_mark("head"), "conflict", message, hint, ("head",))
        if not node.is_map or len(node.value) > limits.MAX_STAGES:
            self.complaints.must_be(f"a mapping of at most {limits.MAX_STAGES} outputs to heads", node, ("heads",))
            return []
        given = {name: each for name, each in node.value.items() if each.value is not None}
        if MAIN not in given:
            self.complaints.missing(node, "its output is the one that is judged", ("heads", MAIN))
        num_features = len(features.taps) if features is not None and features.taps is not None else None
        if num_features is None and depths is not None:
            num_features = len(depths)
        names = sorted(given, key=lambda name: name != MAIN)
        found = [self._named(name, given[name], node, depths, num_features) for name in names]
        return [each for each in found if each is not None]

    def _named(
        self, name: str, node: YamlNode, heads: YamlNode, depths: Sequence[int] | None, num_features: int | None
    ) -> NamedHead | None:
        path: Path = ("heads", name)
        if _OUTPUT.match(name) is None or name in RESERVED:
            message = f"an output cannot be called {quoted(name)}"
            hint = "use letters, digits and `_`, and no word of Python or of torch's modules"
            self.complaints.add(heads.key_mark(name), "wrong-value", message, hint, path)
            return None
        node = spelt_out(node, "head")
        own = {key: node.get(key) for key in _HEAD_KEYS} if node.is_map else {}
        part = self.parts.one("head", node.without(*_HEAD_KEYS) if node.is_map else node, path)
        tap = self._tap(own.get("tap"), (*path, "tap"), depths, num_features)
        train = own.get("train")
        if train is not None and not isinstance(train.value, bool):
            self.complaints.must_be("true or false", train, (*path, "train"))
        elif train is not None and train.value and name == MAIN:
            message = f"`{MAIN}` is what the network is for, so it is no output of training alone"
            self.complaints.add(train.mark, "wrong-value", message, None, (*path, "train"))
        if part is None:
            return None
        only_training = train is not None and train.value is True
        return NamedHead(name=name, head=cast(Head, part), tap=tap, train=only_training)

    def _tap(
        self, node: YamlNode | None, path: Path, depths: Sequence[int] | None, num_features: int | None
    ) -> str | None:
        if node is None or node.value is None:
            return None
        if not isinstance(node.value, str):
            self.complaints.must_be("the path of a part, or `features.N`", node, path)
            return None
        if _FEATURE.match(node.value) is None:
            self._check_tap(node.value, node, path, depths)
        elif num_features is not None and int(node.value.partition(".")[2]) >= num_features:
            known = listed([f"features.{index}" for index in range(num_features)])
            self.complaints.add(
                node.mark, "unknown-name", f"there is no {quoted(node.value)}", f"One of {known}.", path
            )
        return node.value
