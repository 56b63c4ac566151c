"""Models with smooth activations import from torch and ONNX and agree with their source, products included."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipcompare.errors import UnsupportedOperation
from lipcompare.network.from_onnx import from_onnx
from lipcompare.network.from_torch import from_exported, from_module
from lipcompare.network.graph import Network
from lipcompare.network.load import load


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


ROOT = math.sqrt(2 / math.pi)
ACTIVATIONS: dict[str, nn.Module] = {
    "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "softplus": nn.Softplus(), "softplus beta": nn.Softplus(beta=3.0),
    "elu": nn.ELU(), "elu alpha": nn.ELU(0.4), "celu": nn.CELU(0.6), "selu": nn.SELU(), "silu": nn.SiLU(),
    "gelu": nn.GELU(), "gelu tanh": nn.GELU(approximate="tanh"), "mish": nn.Mish(), "softsign": nn.Softsign(),
    "hardswish": nn.Hardswish(), "hardsigmoid": nn.Hardsigmoid(), "logsigmoid": nn.LogSigmoid(),
    "tanhshrink": nn.Tanhshrink(), "exp": Apply(torch.exp), "erf": Apply(torch.erf), "atan": Apply(torch.atan),
    "swish by hand": Apply(lambda x: x * torch.sigmoid(1.7 * x)),
    "gelu by hand": Apply(lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))),
    "gelu, other order": Apply(lambda x: x * (torch.erf(x * 0.7) * 0.5 + 0.5)),
    "mish by hand": Apply(lambda x: x * torch.tanh(F.softplus(x))),
    "softsign by hand": Apply(lambda x: 2 * x / (3 + x.abs())),
    "hardswish by hand": Apply(lambda x: x * F.relu6(x + 3) / 6),
    "swish by tanh": Apply(lambda x: x * (1 + torch.tanh(x / 2)) / 2),
    "gelu tanh by hand": Apply(lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x**3)))),
    "gelu tanh by products": Apply(lambda x: x * (0.5 + 0.5 * torch.tanh(ROOT * x * (1 + 0.044715 * x * x)))),
    "gelu tanh, scaled": Apply(lambda x: (torch.tanh((2 * x + 0.044715 * (2 * x).pow(3)) * ROOT) + 1) * x / 3),
    "elu by hand": Apply(lambda x: torch.where(x <= 0, 0.7 * torch.expm1(1.3 * x), 2 * x)),
    "softplus by hand": Apply(lambda x: torch.log1p(torch.exp(2 * x)) - 1),
    "square": Apply(lambda x: x**2), "square by product": Apply(lambda x: 0.3 * x * x - 0.5 * x + 1),
    "hardswish by halves": Apply(lambda x: x * torch.clamp(torch.clamp(x + 3, min=0), max=6) / 6),
}  # fmt: skip


def _model(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), activation, nn.Linear(6, 4), activation, nn.Linear(4, 2)).double()


def _agrees(network: Network, model: nn.Module, tolerance: float = 1e-9) -> None:
    x = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    y = model(x)
    values = network.values(x.detach())
    torch.testing.assert_close(values[-1], y, rtol=tolerance, atol=tolerance)
    (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
    rows = torch.eye(2, dtype=torch.float64)[0].expand(20, 2)
    # torch's own derivative of hardsigmoid takes 1/6 in float32
    torch.testing.assert_close(network.pull_back(network.slopes(values), rows), gradient, rtol=1e-7, atol=1e-7)


class Abreast(nn.Module):
    """Models on one input, their outputs one after another: many are taken apart as fast as one."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.models = nn.ModuleList(_model(ACTIVATIONS[name]) for name in names)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([model(x) for model in self.models], dim=1)


def _taken_apart(model: nn.Module) -> torch.export.ExportedProgram:
    """The model in core ATen: softplus, CELU, Mish, HardSwish and others as comparisons, exponentials and clamps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(model, (torch.zeros(1, 3, dtype=torch.float64),)).run_decompositions()


def _all_agree(network: Network, model: Abreast) -> None:
    x = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    values = network.values(x.detach())
    slopes = network.slopes(values)
    for k, one in enumerate(model.models):
        y = one(x)
        torch.testing.assert_close(values[-1][:, 2 * k : 2 * k + 2], y, rtol=1e-9, atol=1e-9)
        (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
        row = torch.eye(network.out_size, dtype=torch.float64)[2 * k].expand(20, -1)
        torch.testing.assert_close(network.pull_back(slopes, row), gradient, rtol=1e-7, atol=1e-7)


NATIVE = [name for name in ACTIVATIONS if name not in ("hardsigmoid", "tanhshrink")]
"""One activation for each."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_torch_modules(name: str) -> None:
    model = _model(ACTIVATIONS[name])
    network = from_module(model)
    _agrees(network, model)
    if name in NATIVE:
        assert network.neurons == 10


def test_torch_modules_taken_apart() -> None:
    model = Abreast(NATIVE)
    network = from_exported(_taken_apart(model))
    _all_agree(network, model)
    assert network.neurons == 10 * len(NATIVE)


def test_files_taken_apart(tmp_path: Path) -> None:
    model = Abreast(["gelu tanh by hand", "softplus beta", "mish", "celu", "logsigmoid", "hardswish", "hardsigmoid",
                     "tanhshrink"])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(_taken_apart(model), tmp_path / "net.pt2")
    _all_agree(load(tmp_path / "net.pt2"), model)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_onnx_files(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = _model(ACTIVATIONS[name]).float()
    graph = _onnx_graph(onnx, model, name)
    if graph is None:
        pytest.skip("no ONNX form of its own")
    path = tmp_path / "net.onnx"
    path.write_bytes(graph)
    _agrees(from_onnx(path), model.double(), 1e-6)


def _onnx_graph(onnx, model: nn.Sequential, name: str) -> bytes | None:
    """The model written by hand: exporters write these operators."""
    h, t = onnx.helper, onnx.TensorProto
    single = {
        "sigmoid": ("Sigmoid", {}), "tanh": ("Tanh", {}), "softplus": ("Softplus", {}), "elu": ("Elu", {}),
        "elu alpha": ("Elu", {"alpha": 0.4}), "celu": ("Celu", {"alpha": 0.6}), "selu": ("Selu", {}),
        "gelu": ("Gelu", {}), "gelu tanh": ("Gelu", {"approximate": "tanh"}), "mish": ("Mish", {}),
        "softsign": ("Softsign", {}), "hardswish": ("HardSwish", {}), "exp": ("Exp", {}), "erf": ("Erf", {}),
        "atan": ("Atan", {}),
    }  # fmt: skip
    nodes, weights = [], []
    last = "x"
    for k, layer in enumerate(model):
        out = f"v{k}"
        if isinstance(layer, nn.Linear):
            for letter, value in (("W", layer.weight), ("b", layer.bias)):
                weights.append(onnx.numpy_helper.from_array(value.detach().float().numpy(), f"{letter}{k}"))
            nodes.append(h.make_node("Gemm", [last, f"W{k}", f"b{k}"], [out], transB=1))
        elif name in single:
            kind, attributes = single[name]
            nodes.append(h.make_node(kind, [last], [out], **attributes))
        elif name == "silu":
            nodes.append(h.make_node("Sigmoid", [last], [f"s{k}"]))
            nodes.append(h.make_node("Mul", [last, f"s{k}"], [out]))
        elif name == "mish by hand":
            nodes.append(h.make_node("Softplus", [last], [f"s{k}"]))
            nodes.append(h.make_node("Tanh", [f"s{k}"], [f"t{k}"]))
            nodes.append(h.make_node("Mul", [last, f"t{k}"], [out]))
        elif name == "gelu by hand":
            numbers = {"r": math.sqrt(2), "one": 1.0, "half": 0.5}
            for key, number in numbers.items():
                weights.append(h.make_tensor(f"{key}{k}", t.FLOAT, [], [number]))
            nodes.append(h.make_node("Div", [last, f"r{k}"], [f"d{k}"]))
            nodes.append(h.make_node("Erf", [f"d{k}"], [f"e{k}"]))
            nodes.append(h.make_node("Add", [f"e{k}", f"one{k}"], [f"a{k}"]))
            nodes.append(h.make_node("Mul", [last, f"a{k}"], [f"m{k}"]))
            nodes.append(h.make_node("Mul", [f"m{k}", f"half{k}"], [out]))
        else:
            return None
        last = out
    graph = h.make_graph(
        nodes, "net", [h.make_tensor_value_info("x", t.FLOAT, [1, 3])],
        [h.make_tensor_value_info(last, t.FLOAT, [1, 2])], weights,
    )  # fmt: skip
    stream = io.BytesIO()
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 22)], ir_version=10), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.sigmoid(x.flip(1)),
        lambda x: x * torch.sigmoid(x + 1),
        lambda x: x / (x + 2),
        lambda x: x**3,
        lambda x: x + torch.tanh(x + 0.1 * x**3),
        lambda x: x * torch.tanh(ROOT * (x + 0.044715 * x**3)),
        lambda x: x * (x > 0),
    ],
)
def test_other_products_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(
        UnsupportedOperation,
        match=r"depend on the input|depends on the input|only as in tanh-GELU|parts of an activation",
    ):
        from_module(nn.Sequential(nn.Linear(3, 4), Apply(function)), input_shape=(3,))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (torch.log1p, "only after an exponential"),
        (lambda x: x**4, "the power 4 is not piecewise linear"),
        (lambda x: torch.where(x > 1, x, 2 * x), "a number other than zero"),
        (lambda x: torch.where(x > 20, x, F.softplus(2 * x)), "a number other than zero"),
        (lambda x: torch.where(x > 0, x, torch.expm1(x) + 1), "not multiples of the value"),
        (lambda x: torch.where(x > 0, x * x, x), "depend on the input"),
        (lambda x: torch.where(x > x.flip(1), x, 2 * x), "only with one constant"),
    ],
)
def test_what_is_no_activation_is_named(function: Callable[[Tensor], Tensor], says: str) -> None:
    with pytest.raises(UnsupportedOperation, match=says):
        from_module(nn.Sequential(nn.Linear(3, 4), Apply(function)), input_shape=(3,))
