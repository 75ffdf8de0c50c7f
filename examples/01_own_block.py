"""A block of your own: fields, one `lower`, and the language knows it, with its errors and its schema.

The block is an MLP over channels after a depthwise convolution. It imports `archdsl.plugins` alone, the module whose
names stay where they are; nothing in archdsl is changed for it.
Run: python examples/01_own_block.py
With the command line: archdsl --plugin examples/01_own_block.py check my_net.yaml
"""

from __future__ import annotations

import torch

import archdsl
from archdsl.plugins import (
    ActivationName,
    Block,
    Flow,
    Kernel,
    Scope,
    as_planes,
    as_tokens,
    mlp,
    norm,
    ops,
    register,
    residual,
)


@register("local")
class LocalBlock(Block):
    """x += mlp(norm(x + depthwise(x)))."""

    kernel: Kernel = 3
    mlp_ratio: float = 2.0
    act: ActivationName = "silu"

    def lower(self, g: Scope, flow: Flow) -> Flow:
        x = as_planes(g, flow.x)
        dim = x.type.channels
        local = g.add(ops.Conv2d(dim, dim, self.kernel, padding=self.kernel // 2, groups=dim), x, name="local")
        y = as_tokens(g, residual(g, x, local, None))
        y = norm(g, y, "layer", axis="channel", eps=1e-5, name="norm")
        return flow.to(residual(g, x, as_planes(g, mlp(g, y, self.mlp_ratio, self.act)), None))


NET = """
name: local_then_swin
input: {size: 32}
stem: {type: patch, patch: 2, dim: 32, norm: layer}
stages:
  - {block: local, depth: 2, kernel: [3, 5]}
  - {block: swin, depth: 2, heads: 4, window: 4, shift: true, downsample: patch_merging}
head: {type: classifier, classes: 10}
"""


def main() -> None:
    from archdsl.errors import ArchError  # the block needs neither; this script shows what has become of it
    from archdsl.language import loads

    spec = loads(NET, "local_then_swin.yaml")
    print(f"{spec.name}: {archdsl.cost(spec).params:,} parameters, {archdsl.cost(spec).macs:,} MACs")

    module = archdsl.build(spec)
    module(torch.randn(2, 3, 32, 32)).square().mean().backward()
    print("it runs and trains; its first parameters:")
    print("\n".join(f"  {name}" for name, _ in list(module.named_parameters())[4:8]))

    print("and a mistake in it is found like any other:")
    try:
        loads(NET.replace("kernel: [3, 5]", "kernal: 3"), "local_then_swin.yaml")
    except ArchError as error:
        print(error)


if __name__ == "__main__":
    main()
