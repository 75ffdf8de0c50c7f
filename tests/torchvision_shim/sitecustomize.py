"""On the path of a child process, it lets torchvision load where its compiled part does not fit this torch.

What `conftest.load_torchvision` does for this process. It acts when torchvision is imported, and does nothing where it
loads by itself.
"""

import importlib.abc
import sys
from typing import ClassVar


class _WithSchemas(importlib.abc.MetaPathFinder):
    kept: ClassVar[list[object]] = []

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and not self.kept:
            import torch

            if not hasattr(torch.ops.torchvision, "nms"):
                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                self.kept.append(library)
        return


sys.meta_path.insert(0, _WithSchemas())
