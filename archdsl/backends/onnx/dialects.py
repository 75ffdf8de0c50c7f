"""Which dialect of ONNX each runtime gets, where the fastest form of a network differs.

Swin-T in its deploy form against timm's export of the same weights, one thread of a Zen 4 server core, static batch:
how many times as fast, by the median of paired ratios of CPU time (`benchmarks/onnx_dialects.py`). The machine was
busy with other work; where there are two numbers, they are the lowest and highest of several runs. ONNX Runtime 1.31,
OpenVINO 2026.4, `-` where not measured.

    attention  linears  tokens   hidden    onnxruntime fp32            openvino bf16
                                           batch 1       batch 8       batch 1       batch 8
    products   whole    batched  given     1.04 - 1.05   1.03 - 1.04   1.02 - 1.05   1.05
    products   cut      batched  given     1.05 - 1.07   1.03          1.03 - 1.06   1.06
    products   cut      rows     given     -             -             1.06          1.06
    op         whole    batched  given     1.04 - 1.07   1.01 *        1.01          -
    op         cut      batched  given     1.06 - 1.11   1.01 *        1.01          -
    op         cut      batched  wider     1.05          1.01 *        1.00          -
    op         cut      rows     wider     1.12          1.06          -             -

* with the op on four axes where the bias differs by window; now, as in the last row, there are products in its place.
Against each other, in a run of their own on ONNX Runtime at batch 1: "rows" 1.013 and "wider" 1.008 times as fast as
the same without, and both together 1.027.

What else was tried on whole networks: heads first, [1, 3 h, C, d] as weight (no transposes, but products that ONNX
Runtime does not pack: 0.88); windows on an axis of their own, five axes (as fast on ONNX Runtime, but OpenVINO fuses no
attention, 1.00 to 1.01); k transposed at once (OpenVINO then cannot make it part of the product: 1.02 where 1.04).
Matrix products are 75 % of the time on ONNX Runtime and 81 % on OpenVINO in bf16, and run at about 0.9 of their peak.

For TensorRT for RTX 1.7 (SM86, fp16, the whole network compiled ahead of time): the kernels of the engine, the GB
that they move, and a roofline over them, in ms. timm's export of Swin-T has 211 kernels and moves 0.202 GB; that of
Swin-B 629 and 0.536.

    biases      windows       tokens   bias by window  Swin-T, batch 1  Swin-B, batch 1   Swin-T, batch 8
    added       whole         batched  in heads        142 .167  .640   274 .411 1.622    140  .906 2.947
    added       places first  batched  in heads        142 .167  .640   274 .411 1.622    -
    added       places first  rows     in heads        133 .162  .613   253 .399 1.560    -
    multiplied  whole         batched  in heads        117 .165  .587   225 .403 1.514    140 1.067 3.225
    multiplied  whole         rows     in heads        110 .160  .566   206 .393 1.458    127  .894 2.915
    multiplied  places first  batched  in heads        107 .153  .548   203 .378 1.429    -
    multiplied  places first  rows     in heads         98 .148  .522   182 .366 1.367    -
    multiplied  (as above)    rows     on axis          98 .148  .522   182 .366 1.367    112  .854 2.818

Places come first for one image only: with a batch outermost, windows and heads are no single axis, and what should
vanish is copied. A block then has 7 kernels: norm; q, k and v; attention; projection and sum; norm; fc1 and activation;
fc2 and sum. What lost: the constant channel put behind the norm's result by Pad, Concat or a gather (the norm becomes
two kernels: 109 for Swin-T), windows and heads as one axis of three (119), opset 23's Attention (the parser refuses
its softmax in fp32, and without it no more is fused).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from archdsl.backends.onnx.opsets import ATTENTION_OP, BF16_OLDEST, USUAL
from archdsl.passes.pipelines import onnx_dialect
from archdsl.passes.runner import Pass


@dataclass(frozen=True)
class Dialect:
    """The choices that runtimes do not agree on. The defaults are the plain forms that fusers look for.

    attention: "products" is MatMul - Add - Softmax - MatMul; "op" is one `Attention` op where the opset has it (23)
    linears: "whole" is one product and a Split where a linear's result is cut (q, k and v); "cut" is one for each part
    tokens: "rows" holds tokens as [B * N, C] where that makes no difference; for a batch of known size
    hidden: "wider" keeps hidden layers off multiples of 1024 channels (`passes.pad_hidden`)
    biases: "multiplied" holds those of q, k and v among the weights (`passes.multiply_biases`)
    windows: "places_first" holds the place in a window outermost (`passes.places_first`); for a batch of one image
    bias_by_window: where attention's bias differs by window, windows join the heads, or get an axis for the addition
    """

    attention: Literal["products", "op"] = "products"
    linears: Literal["whole", "cut"] = "whole"
    tokens: Literal["batched", "rows"] = "batched"
    hidden: Literal["given", "wider"] = "given"
    biases: Literal["added", "multiplied"] = "added"
    windows: Literal["whole", "places_first"] = "whole"
    bias_by_window: Literal["in_heads", "on_axis"] = "in_heads"

    def opset_for(self, *, bf16: bool = False) -> int:
        """The oldest opset that has these forms, and all other ops as single ones: what is written by default.

        bf16: whether there are bfloat16 values
        """
        return max(USUAL, BF16_OLDEST if bf16 else 0, ATTENTION_OP if self.attention == "op" else 0)

    def passes(self, batch: int | None) -> tuple[Pass, ...]:
        """What rewrites the network before it is written for so many images at once; None: for any number."""
        return onnx_dialect(
            split_products=self.linears == "cut",
            pad_products=self.hidden == "wider",
            biases_multiplied=self.biases == "multiplied",
            windows_places_first=self.windows == "places_first" and batch == 1,
        )


PLAIN = Dialect()

DIALECTS: Mapping[str, Dialect] = {
    "onnxruntime": Dialect(attention="op", linears="cut", tokens="rows", hidden="wider"),
    "openvino": Dialect(linears="cut"),
    "tensorrt": PLAIN,
    "tensorrt-rtx": Dialect(tokens="rows", biases="multiplied", windows="places_first", bias_by_window="on_axis"),
}


NARROW_DIALECTS: Mapping[tuple[str, str], Dialect] = {("tensorrt-rtx", "fp8"): PLAIN}
"""Where another form is better in a quantized precision; measured on Swin-B, SM89, batch 8: 2.36 ms by the estimate in
the plain form, 2.52 in the other."""


def dialect_for(runtime: str, precision: str = "fp32") -> Dialect:
    """The dialect of a runtime by its name; the plain one for a runtime that has not been measured, and for int8."""
    if precision == "int8":
        return PLAIN
    return NARROW_DIALECTS.get((runtime, precision)) or DIALECTS.get(runtime, PLAIN)
