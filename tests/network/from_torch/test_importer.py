"""Modules and exported programs become networks that agree with them; what cannot be read says why."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from network.from_torch.models import MODELS, Apply, agrees, prepared
from torch import Tensor, nn

from lipcompare.errors import InvalidInput
from lipcompare.network.from_torch import example_shape, from_exported, from_module
from lipcompare.network.graph import Affine


@pytest.mark.parametrize("name", ["lenet", "resnet", "groupsort by halves", "transposed conv", "in place", "prelu",
                                  "adaptive average", "functional"])  # fmt: skip
def test_exported_programs_with_a_dynamic_batch(name: str) -> None:
    """As traced, and in core ATen."""
    make, shape = MODELS[name]
    model = prepared(make).eval()
    dynamic = ({0: torch.export.Dim.AUTO},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (torch.zeros(2, *shape, dtype=torch.float64),), dynamic_shapes=dynamic)
        apart = program.run_decompositions()
    for each in (program, apart):
        network = from_exported(each, input_shape=shape)
        assert network.input_shape == shape
        agrees(network, model, shape)


def test_the_module_is_left_alone() -> None:
    model = prepared(MODELS["vgg"][0]).float()
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    flags = [part.training for part in model.modules()]
    network = from_module(model, input_shape=(3, 8, 8), name="small")
    assert network.name == "small" and [part.training for part in model.modules()] == flags
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    bias = next(node.bias for node in network.nodes if isinstance(node, Affine))
    assert bias is not None and bias.dtype == torch.float64


class Counts(nn.Module):
    """Writes into its buffer and into its input, and computes a part without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.dense = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        x.mul_(2)
        with torch.no_grad():
            y = F.relu(self.dense(x))
        return y + x


def test_models_with_side_effects() -> None:
    model = Counts()
    program = torch.export.export(model, (torch.zeros(1, 3, dtype=torch.float64),))
    x = torch.randn(3, dtype=torch.float64)
    for network in (from_module(model, input_shape=(3,)), from_exported(program)):
        torch.testing.assert_close(network.forward(x), model(x.clone()))
        model.count.zero_()
    from_module(model, input_shape=(3,))
    assert float(model.count) == 0


def test_parametrised_weights_are_folded() -> None:
    norm = nn.utils.parametrizations
    model = nn.Sequential(norm.weight_norm(nn.Linear(3, 4)), nn.ReLU(), norm.spectral_norm(nn.Linear(4, 2))).double()
    network = from_module(model, input_shape=(3,))
    assert len(network.nodes) == 4
    agrees(network, model, (3,))


def test_weights_are_copies() -> None:
    model = nn.Linear(3, 2).double()
    network = from_module(model)
    x = torch.ones(3, dtype=torch.float64)
    before = network.forward(x)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    assert torch.equal(network.forward(x), before)


def test_float32_weights_keep_their_values() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    network = from_module(model)
    agrees(network, copy.deepcopy(model).double(), (4,))


def _branches(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (nn.Conv2d(1, 1, 2), None, "give input_shape"),
        (nn.Linear(4, 2), (5,), "does not run on an input of shape"),
        (Apply(_branches), (3,), "torch.export cannot trace"),
        (Apply(lambda x: (x, x)), (3,), "1 input and returns 2 outputs"),
        (Apply(lambda x: torch.log(torch.tensor(-1.0)) + x), (3,), "no finite float64 numbers"),
    ],
)
def test_bad_models_get_a_sentence(
    model: nn.Module, shape: tuple[int, ...] | None, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        from_module(model, input_shape=shape)
    assert "\n" not in str(caught.value) and capfd.readouterr().err == ""


@pytest.mark.parametrize("wrap", [lambda y: (y,), lambda y: [y], lambda y: {"logits": y}, lambda y: ({"y": [y]},)])
def test_one_tensor_in_a_container(wrap: Callable[[Tensor], object]) -> None:
    model = Apply(lambda x, a: wrap(a(x)), nn.Linear(3, 2).double())
    network = from_module(model, input_shape=(3,))
    x = torch.randn(3, dtype=torch.float64)
    torch.testing.assert_close(network.forward(x), model.parts[0](x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_whose_weights_torch_does_not_know_of(dtype: torch.dtype) -> None:
    """No parameters to read the precision off, and tensors that ask for one."""
    weight = torch.randn(3, 2, dtype=dtype)
    network = from_module(Apply(lambda x: F.relu(x @ weight)), input_shape=(3,))
    x = torch.randn(3, dtype=torch.float64)
    torch.testing.assert_close(network.forward(x), F.relu(x @ weight.double()))


@pytest.mark.parametrize("wrapped", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_the_input_shape_of_a_parametrised_layer_is_guessed(wrapped: Callable[[nn.Module], nn.Module]) -> None:
    assert from_module(nn.Sequential(wrapped(nn.Linear(3, 4)), nn.ReLU())).input_shape == (3,)


def _complex() -> nn.Module:
    model = nn.Module()
    model.register_parameter("w", nn.Parameter(torch.ones(3, dtype=torch.complex64)))
    return model


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (nn.Sequential(nn.LazyLinear(2)), (3,), "'0.weight' of a lazy module has no shape yet: run the model once"),
        (nn.Linear(3, 2, device="meta"), (3,), "'weight' is on the meta device"),
        (_complex(), (3,), "'w' has complex entries"),
        (Apply(lambda x, a: a(x[:, :2]), nn.Linear(3, 2)), None, "which is a guess from the first Linear layer"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), (3,), "0 is an Embedding, which takes integers"),
        (Apply(lambda x: x + torch.zeros(10**6, 10**6).sum()), (3,), "memory|does not run"),
        (Apply(lambda x, a: a(x.reshape(1, 1, 2, 2)), nn.Conv2d(1, 1, 2, padding=10**6)), (4,), "does not run|memory"),
    ],
    ids=["lazy", "meta", "complex", "guess", "embedding", "zeros", "padding"],
)
def test_models_that_cannot_be_read_say_why(model: nn.Module, shape: tuple[int, ...] | None, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        from_module(model, input_shape=shape)
    assert "\n" not in str(caught.value)


def test_a_weight_of_few_numbers_and_many_entries() -> None:
    """A stride of zero: 4 bytes of memory, 640 MB of weights in float64."""
    model = nn.Linear(1, 1)
    model.weight = nn.Parameter(torch.zeros(1, 1).expand(10**4, 8 * 10**3))
    model.bias = None
    with pytest.raises(InvalidInput, match="memory limit"):
        from_module(model, input_shape=(8 * 10**3,))


def test_nan_weights_are_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        model[2].weight[0, 1] = float("nan")
    with pytest.raises(InvalidInput, match=r"'2\.weight' has NaN"):
        from_module(model)


def test_a_fixed_batch_is_refused_unless_it_is_meant() -> None:
    program = torch.export.export(nn.Linear(4, 2), (torch.zeros(5, 4),))
    with pytest.raises(InvalidInput, match="may be a batch of 5"):
        from_exported(program)
    with pytest.raises(InvalidInput, match="fixed batch of 5"):
        from_exported(program, input_shape=(4,))
    assert from_exported(program, input_shape=(5, 4)).out_size == 10


@pytest.mark.parametrize(
    ("layer", "takes"),
    [(nn.Conv1d(3, 1, 1), "(3, length)"), (nn.Conv2d(1, 1, 1), "(1, height, width)"),
     (nn.Conv3d(2, 1, 1), "(2, depth, height, width)")],
)  # fmt: skip
def test_an_input_without_channels_is_told_what_the_first_layer_takes(layer: nn.Module, takes: str) -> None:
    axes = takes.count(",") + 1
    assert example_shape(layer, (5,) * axes) == example_shape(layer, (7,) + (5,) * axes) == (5,) * axes
    assert example_shape(layer, ()) is None
    with pytest.raises(InvalidInput) as error:
        example_shape(layer, (8,) * (axes - 1))
    assert f"the first layer takes {takes} or a batch of that" in str(error.value)
