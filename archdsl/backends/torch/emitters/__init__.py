"""Op -> torch.fx: one file for each family of `archdsl.ops`, each with a table `EMITTERS`."""

from archdsl.backends.emitters import collected
from archdsl.backends.torch.builder import Emitters

EMITTERS: Emitters = collected(__name__)
"""The emitters of all families by op. A plug-in adds those of its own ops here."""
