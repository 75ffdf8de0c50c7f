"""Comparing our Protocols of TensorRT, and its stand-in, with classes: the real ones, or the stand-in's own.

Run as a program (`python trt_comparison.py MODULE`) it prints, as JSON, what was compared and what does not agree.
What is compared is walked from the Protocol of the module, so a new member is covered unasked.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from archdsl.backends.trt import api
from archdsl.backends.trt.library import TensorRT

ACCEPTS = {
    int: ("typing.SupportsInt", "int"),
    float: ("typing.SupportsFloat", "float"),
    str: ("str",),
    bool: ("bool",),
    bytes: ("typing_extensions.Buffer", "collections.abc.Buffer", "buffer"),
}
"""How the bindings' docstrings write an argument that takes our type."""


class Parameter(typing.NamedTuple):
    name: str
    type: str
    optional: bool


class Signature(typing.NamedTuple):
    parameters: list[Parameter]
    result: str


# ---- what we say


def is_protocol(thing: Any) -> bool:
    return isinstance(thing, type) and getattr(thing, "_is_protocol", False)


def bound_name(protocol: type) -> str:
    """What the bindings call the class that a Protocol describes."""
    return {"IRuntime": "Runtime"}.get(protocol.__name__, protocol.__name__)


def attributes(protocol: type) -> dict[str, Any]:
    """The members that a Protocol names, without what every Protocol has."""
    named: dict[str, Any] = dict.fromkeys(inspect.get_annotations(protocol))
    named |= {k: v for k, v in vars(protocol).items() if inspect.isfunction(v) or isinstance(v, property)}
    return {k: v for k, v in named.items() if k in ("__len__", "__getitem__", "__version__") or not k.startswith("_")}


def hints(thing: Any) -> dict[str, Any]:
    return typing.get_type_hints(thing, vars(api) | {"api": api, "Any": Any})


def is_enum(protocol: type) -> bool:
    kinds = hints(protocol)
    return bool(kinds) and all(kind is api.Member for kind in kinds.values())


def plain(kind: Any) -> Any:
    """A type without its None."""
    if isinstance(kind, types.UnionType):
        (kind,) = (arg for arg in typing.get_args(kind) if arg is not types.NoneType)
    return kind


def mentioned(protocol: type) -> Iterator[type]:
    """The Protocols that a Protocol's members take or give."""
    for member in attributes(protocol).values():
        function = member.fget if isinstance(member, property) else member
        for kind in hints(function).values() if function else ():
            yield from (x for x in (plain(kind), *typing.get_args(plain(kind))) if is_protocol(x))
    yield from (kind for kind in hints(protocol).values() if is_protocol(kind))


def reachable() -> list[type]:
    """Every Protocol that can be reached from the module's, but those of the module itself."""
    found: list[type] = []
    queue = [*mentioned(TensorRT), *mentioned(api.Constructors), api.ILogger, api.IProfiler]
    while queue:
        protocol = queue.pop()
        if protocol not in found and protocol is not api.Member:
            found.append(protocol)
            queue.extend(mentioned(protocol))
    return sorted(found, key=bound_name)


# ---- what they say


def documented(thing: Any, name: str) -> list[Signature]:
    """The signatures in a docstring of pybind11."""
    text = thing.__doc__ or ""
    lines = re.findall(rf"^(?:\d+\. )?(?:{re.escape(name)})?\((.*)\) -> (.+)$", text, re.MULTILINE)
    return [
        Signature([_parameter(part) for part in _parts(args)], result)
        for args, result in lines
        if not args.startswith("*args")
    ]


def _parts(text: str) -> list[str]:
    """Split at the commas that stand in no bracket."""
    parts, depth, last = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return [part.strip() for part in [*parts, text[last:]] if part.strip() not in ("", "/", "*")]


def _parameter(text: str) -> Parameter:
    name, _, rest = text.partition(":")
    kind, equals, _ = rest.partition(" = ")
    return Parameter(name.strip(), kind.strip(), bool(equals))


def short(kind: str) -> str:
    """The last part of a dotted name: what a class is called, whatever module it is said to be in."""
    return re.split(r"::|\.", re.sub(r"nvinfer1::v_\d+_\d+::", "", kind))[-1]


def fits_argument(ours: Any, theirs: str) -> bool:
    ours = plain(ours)
    if ours is Any or ours is api.Member:
        return theirs not in ("str", "bool", "typing.SupportsInt", "typing.SupportsFloat")
    if ours in ACCEPTS:
        return theirs in ACCEPTS[ours]
    if is_protocol(ours):
        return short(theirs) == bound_name(ours)
    if typing.get_origin(ours) is tuple:
        return theirs == "tuple"
    return short(theirs) == "Dims" or theirs.startswith("collections.abc.Sequence")  # bindings make a Dims of ints


def fits_result(ours: Any, theirs: str) -> bool:
    ours = plain(ours)
    if ours is Any or ours is api.Member:
        return theirs not in ("str", "bool", "int", "float", "None")
    if ours is type(None):
        return theirs == "None"
    if ours in (int, str, bool, float):
        return theirs == bound_name(ours)
    if is_protocol(ours):
        return short(theirs) in (bound_name(ours), f"I{bound_name(ours)}")
    return bool(re.match(r"list\[.*Dims\]", theirs))


# ---- agreeing


class Comparison:
    """Collects what was compared and what does not agree. `real` is the module of the bindings."""

    def __init__(self, real: Any):
        self.real, self.compared, self.wrong = real, [], []

    def all(self) -> Comparison:
        self.enum_or_class_names()
        for protocol in reachable():
            theirs = getattr(self.real, bound_name(protocol), None)
            if theirs is None:
                self.wrong.append(f"{bound_name(protocol)}: there is no such class")
            elif is_enum(protocol):
                for name in attributes(protocol):
                    self.check(f"{bound_name(protocol)}.{name}", name in theirs.__members__, "no such member")
            else:
                for name, member in attributes(protocol).items():
                    self.member(protocol, theirs, name, member)
        return self

    def enum_or_class_names(self) -> None:
        """The module's own attributes, and the constructors."""
        for name in hints(TensorRT):
            self.check(name, hasattr(self.real, name), "not in the module")
        for name, function in attributes(api.Constructors).items():
            self.signature(name, function, documented(getattr(self.real, name).__init__, "__init__"), constructor=True)

    def member(self, protocol: type, theirs: type, name: str, member: Any) -> None:
        label = f"{bound_name(protocol)}.{name}"
        if not hasattr(theirs, name):
            self.wrong.append(f"{label}: no such member")
        elif inspect.isfunction(member):
            self.signature(label, member, documented(getattr(theirs, name), name))
        else:
            found = inspect.getattr_static(theirs, name)
            self.check(label, isinstance(found, property), "not a property")
            kind = hints(member.fget)["return"] if isinstance(member, property) else hints(protocol)[name]
            results = [signature.result for signature in documented(found.fget, "")]
            if name != "profiler":  # set by us, never read
                self.check(label, any(fits_result(kind, result) for result in results) or not results, str(results))
            if not isinstance(member, property):
                self.check(f"{label} =", found.fset is not None, "cannot be set")

    def signature(self, label: str, function: Any, theirs: list[Signature], constructor: bool = False) -> None:
        kinds = hints(function)
        ours = list(inspect.signature(function).parameters.values())[1:]
        result = None if constructor else kinds.get("return")

        def agrees(signature: Signature) -> bool:
            known = signature.parameters[1:]
            return (
                len(ours) <= len(known)
                and all(parameter.optional for parameter in known[len(ours) :])
                and all(
                    (mine.kind is mine.POSITIONAL_ONLY or mine.name == other.name)
                    and fits_argument(kinds[mine.name], other.type)
                    for mine, other in zip(ours, known, strict=False)
                )
                and (constructor or fits_result(result, signature.result))
            )

        self.check(label, any(agrees(signature) for signature in theirs), f"none of {theirs}")

    def check(self, label: str, right: bool, why: str) -> None:
        self.compared.append(label)
        if not right:
            self.wrong.append(f"{label}: {why}")


def fake_members(real: Any) -> tuple[list[str], list[str]]:
    """The stand-in's public members, and those that the real classes do not have or take other arguments for."""
    import fake_tensorrt

    compared, wrong = [], []
    for ours in fake_tensorrt.ENUMS:
        for name in ours.__members__:
            compared.append(f"{bound_name(ours)}.{name}")
            if name not in getattr(real, bound_name(ours)).__members__:
                wrong.append(compared[-1])
    for name in fake_tensorrt.Severity.__members__:
        compared.append(f"ILogger.{name}")
        if not hasattr(real.ILogger, name):
            wrong.append(compared[-1])
    for ours in fake_tensorrt.CLASSES:
        theirs = getattr(real, bound_name(ours))
        own = {name for base in ours.__mro__ if base.__module__ == fake_tensorrt.__name__ for name in vars(base)}
        own |= {"profiler"} if ours is fake_tensorrt.IExecutionContext else set()
        for name in sorted(name for name in own if not name.startswith("_")):
            compared.append(f"{bound_name(ours)}.{name}")
            if not hasattr(theirs, name):
                wrong.append(compared[-1])
            elif inspect.isfunction(vars(ours).get(name)):
                wanted = list(inspect.signature(vars(ours)[name]).parameters)[1:]
                known = [[p.name for p in s.parameters[1:]] for s in documented(getattr(theirs, name), name)]
                if not any(wanted == names[: len(wanted)] for names in known):
                    wrong.append(f"{compared[-1]}({', '.join(wanted)}): {known}")
    for name in (name for name in vars(fake_tensorrt.FakeTensorRT) if not name.startswith("_")):
        compared.append(name)
        if not hasattr(real, name):
            wrong.append(name)
    return compared, wrong


def fake_lacks() -> list[str]:
    """What the Protocols name and the stand-in does not have."""
    import fake_tensorrt

    module = fake_tensorrt.FakeTensorRT()
    missing = [name for name in [*hints(TensorRT), *attributes(api.Constructors)] if not hasattr(module, name)]
    instances = {"IBuilderConfig": fake_tensorrt.IBuilderConfig(module), "Runtime": fake_tensorrt.Runtime(module)}
    instances["IExecutionContext"] = fake_tensorrt.IExecutionContext(None)
    for protocol in reachable():
        if protocol is api.Dims:  # a tuple
            continue
        ours = instances.get(bound_name(protocol)) or getattr(fake_tensorrt, bound_name(protocol))
        missing += [f"{bound_name(protocol)}.{name}" for name in attributes(protocol) if not hasattr(ours, name)]
    return missing


def use(real: Any) -> dict[str, Any]:
    """What works without TensorRT's libraries and a GPU: deriving from its classes, and being refused a builder."""
    import fake_tensorrt  # noqa: F401

    from archdsl.backends.trt.engine import build_engine, status
    from archdsl.backends.trt.library import open_log
    from archdsl.errors import BackendError

    log = open_log(real)
    log.logger.log(real.ILogger.ERROR, "said")
    profiler = type("Profiler", (real.IProfiler,), {"report_layer_time": lambda self, layer_name, ms: None})()
    profiler.report_layer_time("layer", 1.0)
    flag = 1 << int(real.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    try:
        build_engine(_tiny_model(), trt=real)
        refused = "nothing"
    except BackendError as error:
        refused = error.problems[0].rule
    found = status(lambda: real, lambda: None)
    return {"messages": list(log.messages), "flag": flag, "refused": refused, "status": found.found}


def _tiny_model() -> bytes:
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "tiny", value[:1], value[1:])
    return helper.make_model(graph).SerializeToString()


if __name__ == "__main__":
    module = import_module(sys.argv[1])
    protocols = Comparison(module).all()
    fake_compared, fake_wrong = fake_members(module)
    answer = {
        "version": module.__version__,
        "compared": protocols.compared,
        "wrong": protocols.wrong,
        "fake_compared": fake_compared,
        "fake_wrong": fake_wrong,
        "use": use(module),
    }
    print(json.dumps(answer))
