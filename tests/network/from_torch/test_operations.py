"""Every operation of torch is lowered to what it computes, or refused by name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network.from_torch.models import MODELS, Apply, agrees, prepared
from torch import Tensor, nn

from lipcompare.errors import UnsupportedOperation
from lipcompare.network.activations import LeakyReLU
from lipcompare.network.from_torch import from_module
from lipcompare.network.graph import Affine


@pytest.mark.parametrize("name", MODELS)
def test_import_agrees_with_torch(name: str) -> None:
    make, shape = MODELS[name]
    model = prepared(make)
    network = from_module(model, input_shape=shape)
    assert network.input_shape == shape
    assert isinstance(network.nodes[-1], Affine)
    agrees(network, model, shape)


def test_layer_structure_is_what_bounds_want() -> None:
    """Batch norm, dropout and flattening leave no trace; two paths share the pre-activations of max and min."""
    vgg = from_module(prepared(MODELS["vgg"][0]), input_shape=(3, 8, 8))
    assert sum(isinstance(n, Affine) and type(n.maps[0]).__name__ == "Conv" for n in vgg.nodes) == 2
    group = from_module(prepared(MODELS["groupsort by halves"][0]))
    assert group.neurons == 6
    pool = from_module(nn.MaxPool2d(3, 1), input_shape=(1, 6, 6))
    assert pool.neurons < 6 * 16
    assert from_module(Apply(lambda x: x.relu() + F.relu(x)), input_shape=(3,)).neurons == 3


def test_prelu_slopes_are_native_where_they_can_be() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.PReLU(3))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-1.0, 0.5, 1.0]))
    network = from_module(model)
    (k,) = network.activations
    activation = network.activation(k)
    assert isinstance(activation, LeakyReLU) and isinstance(activation.alpha, Tensor)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Attention(), (3, 4), "attention multiplies"),
        (Apply(lambda x: x @ x.transpose(1, 2)), (3, 4), "both depend on the input"),
        (Apply(lambda x: x * x.flip(1)), (4,), "both depend on the input"),
        (Apply(lambda x: x**x), (4,), "base and exponent both vary"),
        (Apply(lambda x: (-2) ** x), (4,), "no function of real numbers"),
        (Apply(lambda x: x**2.5), (4,), "the power 2.5"),
        (Apply(lambda x: torch.einsum("bi,bi->b", x, x)), (4,), "both depend on the input"),
        (nn.Threshold(0.2, 0.1), (4,), "jumps from 0.1 to 0.2"),
        (nn.Hardshrink(0.5), (4,), "jumps at -0.5 and 0.5"),
        (nn.GLU(), (4,), "both depend on the input"),
        (Apply(lambda x: torch.linalg.cross(x, x)), (3,), "one of its factors"),
        (Apply(lambda x: F.grid_sample(x, x.permute(0, 2, 3, 1))), (2, 3, 3), "one of its factors"),
        (nn.InstanceNorm1d(3), (3, 4), "statistics of its input"),
        (Apply(lambda x: 1 / x), (4,), "reciprocal"),
        (Apply(lambda x: torch.where(x > 0, x, x - 1)), (4,), "multiples"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (4,), "layer_norm.*statistics of its input"),
        (nn.GroupNorm(1, 3), (3, 4), "group_norm.*statistics of its input"),
        (nn.BatchNorm2d(2, track_running_stats=False), (2, 3, 3), "batch norm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsupported_operations_are_named(model: nn.Module, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UnsupportedOperation, match=words) as caught:
        from_module(model, input_shape=shape)
    message = str(caught.value)
    assert message.endswith("`lipcompare operations` lists all that are.") and len(message) < 600
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
