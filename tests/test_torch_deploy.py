"""The deploy form's linears compute what plain torch computes, however the module is used."""

from __future__ import annotations

import copy
import io
import operator
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.utils.parametrize
import torch.utils.flop_counter
from torch import Tensor, fx, nn
from torch.nn import functional as F

import archdsl
from archdsl.backends.torch import deploy as torch_deploy
from archdsl.backends.torch import fx as torch_fx
from archdsl.backends.torch.deploy import PackedLinear, optimise

needs_kernels = pytest.mark.skipif(torch_deploy._kernels is None, reason="no oneDNN linears here")

SPECS = ("micro_swin", "micro_swin_free_br", "swin_t", "swin_free_t", "vit_ti_16", "convnext_t", "convnext_swin_t")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the weights that were packed since the test began."""
    if torch_deploy._kernels is None:
        pytest.skip("no oneDNN linears here")
    packed: list[tuple[int, ...]] = []
    pack = torch_deploy._kernels.pack

    def counted(weight: Tensor) -> Tensor:
        packed.append(tuple(weight.shape))
        return pack(weight)

    monkeypatch.setattr(torch_deploy._kernels, "pack", counted)
    return packed


def plain_module(spec: str) -> fx.GraphModule:
    """The spec as the torch backend emits it, with weights under which every tensor matters."""
    module = torch_fx.emit(archdsl.compile(spec)).eval().requires_grad_(False)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.2
            tensor.normal_(float(name.endswith("weight") and tensor.ndim == 1), scale)
    return module


def both(spec: str = "micro_swin") -> tuple[fx.GraphModule, fx.GraphModule]:
    """(plain, optimised), with weights of their own."""
    plain = plain_module(spec)
    return plain, optimise(copy.deepcopy(plain))


def images_for(spec: str = "micro_swin", batch: int = 2) -> Tensor:
    (image,) = archdsl.compile(spec).inputs
    return torch.randn(batch, *image.type.shape)


def chain(*functions: Callable[..., Tensor], bias: bool = True, residual: bool = False) -> fx.GraphModule:
    """x -> [x +] functions(linear(x)), as a graph module."""
    root = nn.Module()
    root.fc = nn.Linear(24, 24, bias=bias)
    code = fx.Graph()
    x = code.placeholder("x")
    y = code.call_module("fc", (x,))
    for function in functions:
        y = code.call_function(function, (y,))
    if residual:
        y = code.call_function(operator.add, (x, y))
    code.output(y)
    return fx.GraphModule(root, code).eval().requires_grad_(False)


def assert_same(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    assert (got - want).abs().max() <= tolerance * want.abs().max()


@pytest.mark.parametrize("spec", SPECS)
def test_the_optimised_module_computes_what_the_plain_one_does(spec: str):
    plain, fast = both(spec)
    images = images_for(spec)
    with torch.inference_mode():
        assert_same(fast(images), plain(images), 1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_parameters_keep_their_names_numbers_and_identity(spec: str):
    module = plain_module(spec)
    before = dict(module.named_parameters())
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    after = optimise(module)
    assert {name: id(each) for name, each in after.named_parameters()} == {n: id(p) for n, p in before.items()}
    assert list(after.state_dict()) == list(state)
    with torch.no_grad():
        after(images_for(spec))
    assert list(after.state_dict()) == list(state)
    assert all(torch.equal(after.state_dict()[name], tensor) for name, tensor in state.items())


def test_activations_and_residual_additions_go_into_their_linears():
    _, fast = both("micro_swin")
    linears = [each for each in fast.modules() if isinstance(each, nn.Linear)]
    assert linears and all(type(each) is PackedLinear for each in linears)
    assert not any(node.target is F.gelu for node in fast.graph.nodes)
    blocks = sum(each.activation == "gelu" for each in linears)
    with_residual = [node for node in fast.graph.nodes if node.op == "call_module" and len(node.args) == 2]
    assert blocks > 0
    assert len(with_residual) == 2 * blocks  # attn.proj and mlp.fc2


@needs_kernels
def test_every_linear_of_a_network_runs_packed(packings: list[tuple[int, ...]]):
    _, fast = both("micro_swin")
    with torch.inference_mode():
        fast(images_for())
    assert len(packings) == sum(isinstance(each, nn.Linear) for each in fast.modules())
    with torch.inference_mode():
        fast(images_for())
    assert len(packings) == sum(isinstance(each, nn.Linear) for each in fast.modules())


ACTIVATIONS: list[Callable[..., Tensor]] = [F.relu, F.gelu, F.silu, F.hardswish]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("function", [None, *ACTIVATIONS], ids=lambda f: getattr(f, "__name__", "none"))
def test_every_activation_bias_and_format(function: Callable[..., Tensor] | None, bias: bool, dtype: torch.dtype):
    plain = chain(*([function] if function else []), bias=bias, residual=function is None).to(dtype)
    fast = optimise(copy.deepcopy(plain))
    assert len(fast.graph.nodes) == 3  # input, linear, output
    x = torch.randn(3, 5, 24, dtype=dtype)
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 2e-3}.get(dtype, 1e-6)
    with torch.no_grad():
        assert_same(fast(x), plain(x), tolerance)


def test_gelu_tanh_is_not_taken_for_gelu():
    def module() -> fx.GraphModule:
        made = chain(F.gelu)
        next(node for node in made.graph.nodes if node.target is F.gelu).kwargs = {"approximate": "tanh"}
        made.recompile()
        return made

    fast = optimise(module())
    assert fast.fc.activation == "gelu_tanh"
    x = torch.randn(4, 24)
    with torch.no_grad():
        assert_same(fast(x), F.gelu(F.linear(x, fast.fc.weight, fast.fc.bias), approximate="tanh"), 1e-6)


@pytest.mark.parametrize("shape", [(24,), (0, 24), (0, 5, 24), (1, 24), (2, 3, 4, 24)], ids=str)
def test_any_number_of_axes_and_an_empty_batch(shape: tuple[int, ...]):
    plain = chain(residual=True)
    fast = optimise(copy.deepcopy(plain))
    x = torch.randn(shape)
    with torch.no_grad():
        want = plain(x)
        assert fast(x).shape == want.shape
        torch.testing.assert_close(fast(x), want)


def test_memory_in_any_order_and_the_residual_stays_as_it_was():
    plain = chain(residual=True)
    fast = optimise(copy.deepcopy(plain))
    x = torch.randn(2, 24, 7).transpose(1, 2)
    before = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x))
    assert torch.equal(x, before)


def test_a_value_that_others_read_too_stays():
    root = nn.Module()
    root.fc = nn.Linear(8, 8)
    code = fx.Graph()
    y = code.call_module("fc", (code.placeholder("x"),))
    code.output((code.call_function(F.relu, (y,)), code.call_function(operator.add, (y, y)), y))
    plain = fx.GraphModule(root, code).eval()
    fast = optimise(copy.deepcopy(plain))
    x = torch.randn(3, 8)
    with torch.no_grad():
        for got, want in zip(fast(x), plain(x), strict=True):
            torch.testing.assert_close(got, want)


def test_an_activation_before_the_addition_is_not_lost():
    plain = chain(F.gelu, residual=True)
    fast = optimise(copy.deepcopy(plain))
    x = torch.randn(3, 24)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x))


def test_a_weight_that_is_computed_anew_each_time_is_not_packed(packings: list[tuple[int, ...]]):
    plain = chain()
    fast = optimise(copy.deepcopy(plain))
    for module in (plain, fast):
        torch.nn.utils.parametrize.register_parametrization(module.fc, "weight", nn.Tanh())
    x = torch.randn(3, 24)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x))
    assert not packings


def test_a_module_called_twice_keeps_its_form():
    root = nn.Module()
    root.fc = nn.Linear(8, 8)
    code = fx.Graph()
    x = code.placeholder("x")
    code.output(code.call_module("fc", (code.call_function(F.relu, (code.call_module("fc", (x,)),)),)))
    fast = optimise(fx.GraphModule(root, code))
    assert type(fast.fc) is nn.Linear


def test_a_broadcast_addition_broadcasts():
    root = nn.Module()
    root.fc = nn.Linear(8, 8)
    root.register_buffer("position", torch.randn(1, 5, 8))
    code = fx.Graph()
    y = code.call_module("fc", (code.placeholder("x"),))
    code.output(code.call_function(operator.add, (y, code.get_attr("position"))))
    plain = fx.GraphModule(root, code).eval()
    fast = optimise(copy.deepcopy(plain))
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x))


def double(module: fx.GraphModule) -> None:
    module.load_state_dict({name: 2 * tensor for name, tensor in module.state_dict().items()})


def double_assign(module: fx.GraphModule) -> None:
    module.load_state_dict({name: 2 * tensor for name, tensor in module.state_dict().items()}, assign=True)


def double_in_place(module: fx.GraphModule) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)


def double_data(module: fx.GraphModule) -> None:
    for parameter in module.parameters():
        parameter.data = parameter.data * 2


def double_unseen(module: fx.GraphModule) -> None:
    for parameter in module.parameters():
        parameter.data.mul_(2)
    module.fc.forget()


@pytest.mark.parametrize("change", [double, double_assign, double_in_place, double_data, double_unseen])
def test_a_change_of_the_weights_after_a_run_takes_effect(change: Callable[[fx.GraphModule], None]):
    fast = optimise(chain())
    x = torch.randn(3, 24)
    with torch.inference_mode():
        before = fast(x)
    change(fast)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), 2 * before)


def test_moving_to_bf16_and_back_rounds_the_weights(packings: list[tuple[int, ...]]):
    fast = optimise(chain())
    x = torch.randn(3, 24)
    with torch.inference_mode():
        fast(x)
    assert len(packings) == 1
    fast.to(torch.bfloat16)
    assert fast.fc._packed is None  # nothing holds the memory of the weights that were
    with torch.inference_mode():
        assert_same(fast(x.bfloat16()).float(), F.linear(x, fast.fc.weight.float(), fast.fc.bias.float()), 2e-2)
    fast.to(torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), F.linear(x, fast.fc.weight, fast.fc.bias))


def test_weights_made_in_inference_mode_are_never_stale():
    with torch.inference_mode():
        fast = optimise(chain())
        x = torch.randn(3, 24)
        before = fast(x)
        fast.fc.weight.mul_(2)
        fast.fc.bias.mul_(2)
        torch.testing.assert_close(fast(x), 2 * before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_compute_the_same_with_weights_of_their_own(copied: Callable[[fx.GraphModule], fx.GraphModule]):
    fast = optimise(chain(F.gelu))
    images = torch.randn(3, 24)
    with torch.inference_mode():
        want = fast(images)
    other = copied(fast)
    assert not any(isinstance(each, PackedLinear) and each._packed for each in other.modules())
    with torch.no_grad():
        torch.testing.assert_close(other(images), want)
        for parameter in other.parameters():
            parameter.zero_()
        assert not other(images).any()
        torch.testing.assert_close(fast(images), want)


def test_the_state_dict_survives_a_file():
    _, fast = both()
    images = images_for()
    with torch.inference_mode():
        want = fast(images)
    file = io.BytesIO()
    torch.save(fast.state_dict(), file)
    file.seek(0)
    fresh = optimise(torch_fx.emit(archdsl.compile("micro_swin"), seed=1)).eval()
    with torch.inference_mode():
        assert (fresh(images) - want).abs().max() > 1e-3
    fresh.load_state_dict(torch.load(file, weights_only=True))
    with torch.inference_mode():
        torch.testing.assert_close(fresh(images), want)


def test_gradients_reach_the_input_and_the_parameters():
    plain, fast = both()
    images = images_for()
    with torch.no_grad():
        fast(images)
    found = []
    for module in (plain.requires_grad_(True), fast.requires_grad_(True)):
        x = images.clone().requires_grad_(True)
        module(x).square().sum().backward()
        assert x.grad is not None
        found.append([x.grad, *(parameter.grad for parameter in module.parameters())])
    for want, got in zip(*found, strict=True):
        assert_same(got, want, 1e-4)


@needs_kernels
def test_transforms_forward_gradients_modes_and_autocast_take_the_plain_path(monkeypatch: pytest.MonkeyPatch):
    plain = chain(F.gelu)
    fast = optimise(copy.deepcopy(plain))
    x, v = torch.randn(6, 3, 24), torch.randn(6, 3, 24)

    def forbidden(*_: object) -> Tensor:
        raise AssertionError("a kernel ran")

    monkeypatch.setattr(torch_deploy._kernels, "unary", forbidden)
    with torch.no_grad(), pytest.raises(AssertionError, match="a kernel ran"):
        fast(x)
    torch.testing.assert_close(torch.func.vmap(fast)(x), plain(x))
    with torch.autograd.forward_ad.dual_level():
        got, want = (
            torch.autograd.forward_ad.unpack_dual(module(torch.autograd.forward_ad.make_dual(x, v))).tangent
            for module in (fast, plain)
        )
        torch.testing.assert_close(got, want)
    with torch.no_grad(), torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        fast(x)
    assert counter.get_total_flops() == 2 * 6 * 3 * 24 * 24
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), plain(x))


def test_on_the_meta_device_shapes_go_through():
    _, fast = both()
    with torch.no_grad():
        assert fast.to("meta")(images_for().to("meta")).device.type == "meta"


def kernel_calls(code: fx.Graph) -> list[str]:
    return [str(node.target) for node in code.nodes if "mkldnn" in str(node.target)]


@pytest.mark.parametrize("strict", [True, False])
def test_export_sees_plain_torch_and_the_same_names(strict: bool):
    plain, fast = both()
    images = images_for()
    with torch.no_grad():
        want = fast(images)  # packed before the export
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(fast, (images,), dynamic_shapes=({0: batch},), strict=strict)
        assert not kernel_calls(program.graph)
        assert set(program.state_dict) == set(plain.state_dict())
        three = torch.cat([images, images[:1]])
        torch.testing.assert_close(program.module()(three)[:2], want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compilers_see_plain_torch_in_one_piece(backend: str):
    _, fast = both()
    images = images_for()
    seen: list[fx.GraphModule] = []

    def look(module: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        seen.append(module)
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    torch._dynamo.reset()
    with torch.no_grad():
        want = fast(images)
        got = torch.compile(fast, backend=look, fullgraph=True)(images)
    assert len(seen) == 1 and not kernel_calls(seen[0].graph)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_tracing_sees_plain_torch():
    fast = optimise(chain(F.gelu))
    x = torch.randn(3, 24)
    with torch.no_grad():
        want = fast(x)
        traced = torch.jit.trace(fast, (x,))
        assert "mkldnn" not in str(traced.inlined_graph)
        torch.testing.assert_close(traced(x), want)


def test_a_bf16_module_computes_in_bf16():
    plain, fast = both()
    images = images_for().bfloat16()
    with torch.inference_mode():
        want = plain.float()(images.float())
        got = fast.bfloat16()(images)
        assert got.dtype == torch.bfloat16
        assert F.cosine_similarity(got.float(), want).min() > 0.99


def test_without_the_kernels_all_is_plain_torch(monkeypatch: pytest.MonkeyPatch):
    plain, fast = both()
    images = images_for()
    monkeypatch.setattr(torch_deploy, "_kernels", None)
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), plain(images))


def test_a_torch_that_lacks_a_kernel_is_no_error(monkeypatch: pytest.MonkeyPatch):
    class Lacking:
        def __getattr__(self, name: str) -> object:
            raise AttributeError(name)

    monkeypatch.setattr(torch.ops, "mkldnn", Lacking())
    assert torch_deploy._find_kernels() is None


def test_threads_share_a_module():
    from concurrent.futures import ThreadPoolExecutor

    _, fast = both()
    images = images_for()

    def run(_: int) -> np.ndarray:
        with torch.inference_mode():
            return fast(images).numpy()

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(run, range(8))
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)
