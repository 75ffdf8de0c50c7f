"""How each op is written in plain PyTorch: one file for each family of `archdsl.ops`, each with a table `EMITTERS`."""

from archdsl.backends.emitters import collected
from archdsl.backends.source.writer import Emitter
from archdsl.ir.op import Op

EMITTERS: dict[type[Op], Emitter] = collected(__name__)
"""The emitters of all families by op. A plug-in adds those of its own ops here."""
