"""The passes that make a network ready to deploy, in order.

Reorders are settled first, so that what looks for the linear behind a norm finds it near, and again last, because
norms that are gone no longer hold a value in their order.
"""

from __future__ import annotations

from archdsl.passes.drop_train_only import drop
from archdsl.passes.fold_constants import fold as fold_constants
from archdsl.passes.fold_norms import fold as fold_norms
from archdsl.passes.fold_scales import fold as fold_scales
from archdsl.passes.runner import Pass
from archdsl.passes.settle_reorders import settle
from archdsl.passes.share_values import share

DEPLOYMENT: tuple[Pass, ...] = (settle, drop, fold_norms, fold_scales, fold_constants, share, settle)
