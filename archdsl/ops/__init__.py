"""What a node can be. One file a family; `OPS` has all ops, so that tests can ask every backend for every op."""

from importlib import import_module
from pkgutil import iter_modules

from archdsl.ir.graph import Input as Input
from archdsl.ir.op import Op
from archdsl.ops.attention import *
from archdsl.ops.cosine import *
from archdsl.ops.joining import *
from archdsl.ops.linear import *
from archdsl.ops.maps import *
from archdsl.ops.norm import *
from archdsl.ops.pointwise import *
from archdsl.ops.pooling import *
from archdsl.ops.tokens import *
from archdsl.ops.values import *


def _ops() -> tuple[type[Op], ...]:
    """`Input`, and the ops that the modules of this package define, in the order of their definition."""
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)]
    return (
        Input,
        *(
            kind
            for module in modules
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, Op) and kind.__module__ == module.__name__
        ),
    )


OPS = _ops()
