"""A roofline over the kernels of an engine: what its latency on a GPU might be. An estimate that was not validated.

For each kernel, in seconds: max(bytes, products) + launch.

    bytes     from memory at MEMORY of its bandwidth, from the second-level cache at CACHE times that. The cache holds
              the tensors that were used last; the engine runs again and again, so weights may be there still
    products  in the tiles that take least: ceil(blocks / SMs) waves, each SM at COMPUTE of its peak. A depthwise
              convolution is arithmetic without tensor cores, in no tiles
    launch    what lies between two kernels: GRAPH_S where the run is recorded as a CUDA graph, else STREAM_S

The constants are round numbers that were fitted to nothing. For the three networks whose times on TensorRT 10 are
published the estimate was 0.62, 1.04 and 1.61 times the measurement (`benchmarks/engine_estimates.py`); for networks
with windows there is none, so it carries no ±. Use it to order engines of one compiler on one GPU, and measure where a
decision hangs on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from archdsl.backends.trt.build_log import Kernel, Tensor
from archdsl.backends.trt.gpus import Figures
from archdsl.latency.engine.work import TILES, MatrixProduct, filled, filled_attention, products_of, work_of

METHOD = 2
"""Raise it when a change here makes earlier estimates incomparable."""

MEMORY = 0.8
CACHE = 3.0
COMPUTE = 0.6
GRAPH_S = 2e-6
STREAM_S = 4e-6

HALF = frozenset({"Half", "BFloat16"})
"""Types whose products tensor cores take. Int8 is counted as these: this compiler converts such weights first."""

FP8_RATE = 2.0
"""Products of fp8 values against those of fp16, both summed in fp32. NVIDIA's whitepapers of Ada and Blackwell."""


@dataclass(frozen=True)
class KernelEstimate:
    """One kernel of a run in a CUDA graph. memory_bytes, cache_bytes: where its data come from and go to"""

    seconds: float
    memory_bytes: int
    cache_bytes: int
    bound: str


def estimates_of(kernels: Sequence[Kernel], gpu: Figures) -> tuple[KernelEstimate, ...]:
    """The estimate of each kernel, in a run that another run of the same engine preceded.

    Args: kernels: of one engine, all sizes known; gpu: the figures of the GPU that it is for
    """
    cache = _Cache(gpu.l2_mb * 2**20)
    for _ in _traffic(kernels, cache):  # the run before
        pass
    rate = gpu.bandwidth_gb_s * 1e9 * MEMORY
    found = []
    for kernel, (memory, cached) in zip(kernels, _traffic(kernels, cache), strict=True):
        moving, computing = memory / rate + cached / (CACHE * rate), _compute_s(kernel, gpu)
        bound = "products" if computing > moving else "memory" if memory * CACHE > cached else "cache"
        if max(moving, computing) < GRAPH_S:
            bound = "launch"
        found.append(KernelEstimate(max(moving, computing) + GRAPH_S, memory, cached, bound))
    return tuple(found)


def _traffic(kernels: Sequence[Kernel], cache: _Cache) -> Iterator[tuple[int, int]]:
    """For each kernel the bytes that it moves from and to memory, and from and to the cache."""
    for kernel in kernels:
        memory = cached = 0
        for tensor in (*kernel.inputs, *kernel.constants):
            if cache.holds(tensor):
                cached += tensor.size_bytes
            else:
                memory += tensor.size_bytes
        for tensor in kernel.outputs:
            cache.holds(tensor)
            if tensor.size_bytes <= cache.size:  # written back, if at all, while others compute
                cached += tensor.size_bytes
            else:
                memory += tensor.size_bytes
        yield memory, cached


class _Cache:
    """The tensors that were used last, as many as fit; one that is larger than the cache never stays."""

    def __init__(self, size_bytes: float):
        self.size = size_bytes
        self._held: dict[str, int] = {}  # the least recently used first
        self._used = 0

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor is there. It is afterwards, if it fits."""
        known = self._held.pop(tensor.name, None)
        size = max(tensor.size_bytes, known or 0)
        self._used -= known or 0
        if size <= self.size:
            self._held[tensor.name] = size
            self._used += size
            while self._used > self.size:
                oldest = next(iter(self._held))
                self._used -= self._held.pop(oldest)
        return known is not None


def _compute_s(kernel: Kernel, gpu: Figures) -> float:
    products = products_of(kernel)
    if not products:
        return 0.0
    half = any(tensor.dtype in HALF or tensor.dtype in ("FP8", "Int8") for tensor in kernel.inputs)
    plain = gpu.fp32_tflops * 1e12
    peak = gpu.fp16_tflops * 1e12 if half else plain
    if any(tensor.dtype == "FP8" for tensor in kernel.inputs) and work_of(kernel) == "product":
        peak *= FP8_RATE
    if work_of(kernel) == "attention":
        return _in_waves(*filled_attention(products), peak, gpu.sms)
    return sum(_product_s(product, peak, plain, gpu.sms) for product in products)


def _product_s(product: MatrixProduct, peak: float, plain: float, sms: int) -> float:
    if not product.tensor_cores:
        return product.flops / (plain * COMPUTE)
    return min(_in_waves(*filled(product, tile), peak, sms) for tile in TILES)


def _in_waves(blocks: int, flops: int, peak: float, sms: int) -> float:
    """Each block on one SM: the last wave takes as long as a full one."""
    return -(-blocks // sms) * (flops / blocks) / (peak / sms * COMPUTE)
