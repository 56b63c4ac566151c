"""Torch models of many kinds, and what they have to agree in with the networks that are made of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipcompare.network.graph import Network


class Apply(nn.Module):
    """A function with parts, as a module."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class MaxMin(nn.Module):
    """GroupSort of 2 as certified-robustness code writes it."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)


class GroupSort(nn.Module):
    """GroupSort of 2 with neighbouring entries as pairs."""

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.view(x.shape[0], -1, 2)
        return torch.stack([pairs.max(dim=2)[0], pairs.min(dim=2)[0]], dim=2).view(x.shape)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1, 2).sort(dim=-1)[0].flatten(1)


class BasicBlock(nn.Module):
    """A block of ResNet-18, in-place activations and all."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """ResNet-18's layout, narrow."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [width, width, 2 * width, 3 * width, 4 * width]
        self.layers = nn.Sequential(*(
            nn.Sequential(BasicBlock(a, b, 1 if i == 0 else 2), BasicBlock(b, b, 1))
            for i, (a, b) in enumerate(pairwise(widths))
        ))  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


def _functional(x: Tensor, conv: nn.Module, dense: nn.Module) -> Tensor:
    y = F.relu(conv(x)).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4)
    y = (y[:, 1:] - 0.5 * y[:, :-1]).transpose(1, 2)
    y = torch.cat([y.mean(-1), y[..., ::3].sum(2), x.mean((2, 3))], dim=-1)
    return dense((2 * y - 1) / 3)


def _window(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    y = torch.where(torch.ones(6, 6, device=x.device).tril().bool(), y, 0.5)
    y = y.masked_fill(torch.eye(6).bool(), -1.0)
    y = F.pad(y, (1, 2, 0, 1), value=0.25)
    y = F.pad(y, (1, 1, 1, 1), mode="reflect").roll(1, -1).flip(2)
    return F.relu(y).unbind(1)[0].repeat(1, 2, 1).squeeze().flatten()[None, :40]


def _in_place(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x).clone()
    y[:, 0] = 1.0
    y[:, 1] += y[:, 2]
    z = y.view(x.shape[0], -1)
    z.clamp_(-1, 1)
    y *= 2
    return F.relu(y)


def _extremes(x: Tensor) -> Tensor:
    y = torch.max(x, x.flip(-1) * 0.7)
    y = torch.min(y, torch.full_like(x, 0.4)) - torch.maximum(torch.tensor(0.1), x)
    return torch.stack([y.amax(-1), y.amin(1)], 1) + y.max(dim=1, keepdim=True).values


def _matmuls(x: Tensor) -> Tensor:
    left, right = torch.linspace(-1, 1, 12).to(x).view(3, 4), torch.linspace(0, 1, 10).to(x).view(5, 2)
    y = left @ (x.view(-1, 4, 5) @ right)
    many = torch.linspace(-2, 1, 18).to(x).view(3, 2, 3)
    z = torch.matmul(y.unsqueeze(2), many).squeeze(2)
    return torch.relu(z) @ torch.tensor([1.0, -2.0, 0.5]).to(x)


def _tower(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


CNN = nn.Conv2d
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: _tower(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)), (5,)),
    "single layer": (lambda: nn.Linear(4, 2), (4,)),
    "ends with relu": (lambda: _tower(nn.Linear(4, 3), nn.ReLU()), (4,)),
    "identity": (lambda: nn.Identity(), (4,)),
    "constant output": (lambda: Apply(lambda x: torch.ones_like(x)[:, :2]), (4,)),
    "linear on the last axis": (lambda: _tower(nn.Linear(4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2)), (2, 4)),
    "odd strides": (lambda: _tower(CNN(2, 4, (3, 2), (2, 3), (1, 0)), nn.ReLU(), CNN(4, 3, 2, 3)), (2, 9, 11)),
    "dilation and groups": (lambda: _tower(CNN(4, 6, 3, dilation=2, groups=2), nn.ReLU(),
                                           CNN(6, 6, 3, padding="same", groups=6)), (4, 9, 9)),
    "same padding, even kernel": (lambda: CNN(2, 3, 4, padding="same"), (2, 6, 7)),
    "circular padding": (lambda: CNN(2, 3, 3, padding=1, padding_mode="circular"), (2, 6, 7)),
    "conv1d": (lambda: _tower(nn.Conv1d(3, 4, 3, 2, 1), nn.ReLU(), nn.MaxPool1d(2), nn.AvgPool1d(2)), (3, 17)),
    "conv3d": (lambda: _tower(nn.Conv3d(2, 3, 2), nn.ReLU(), nn.MaxPool3d(2), nn.AvgPool3d(2, 1)), (2, 6, 7, 7)),
    "lenet": (lambda: _tower(CNN(1, 3, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), CNN(3, 4, 5), nn.ReLU(),
                             nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 4)), (1, 16,
                                 16)),
    "vgg": (lambda: _tower(CNN(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2, 2),
                           CNN(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(True), nn.MaxPool2d(2, 2),
                           nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(54, 8), nn.ReLU(True), nn.Dropout(),
                           nn.Linear(8, 4)), (3, 8, 8)),
    "resnet": (ResNet, (3, 32, 32)),
    "branches": (lambda: Apply(lambda x, a, b, c: c(torch.cat([F.relu(a(x)), b(x), x], 1)), CNN(2, 3, 1),
                               _tower(CNN(2, 2, 3, padding=1), nn.ReLU()), CNN(7, 2, 1)), (2, 5, 5)),
    "residual mlp": (lambda: Apply(lambda x, a, b: b(x + F.relu(a(x)) + x), nn.Linear(5, 5), nn.Linear(5, 2)), (5,)),
    "batch norm first": (lambda: _tower(nn.BatchNorm1d(5), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(),
                                        nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)), (5,)),
    "batch norm before padded conv": (lambda: _tower(nn.BatchNorm2d(2), CNN(2, 3, 3, padding=1)), (2, 4, 4)),
    "avg pool padded": (lambda: nn.AvgPool2d(3, 2, 1), (2, 8, 7)),
    "avg pool without padding in the count": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 8, 7)),
    "avg pool ceil": (lambda: nn.AvgPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True), (2, 8, 8)),
    "avg pool ceil, not counted": (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 8, 8)),
    "avg pool divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), (2, 4, 5)),
    "avg pool leaves a rest": (lambda: nn.AvgPool2d(3, 2, 1), (1, 5, 6)),
    "adaptive average": (lambda: nn.AdaptiveAvgPool2d((3, None)), (2, 7, 5)),
    "adaptive average 1d": (lambda: nn.AdaptiveAvgPool1d(4), (2, 6)),
    "adaptive max": (lambda: nn.AdaptiveMaxPool2d((2, 3)), (2, 5, 7)),
    "max pool padded": (lambda: nn.MaxPool2d(3, 2, 1), (2, 7, 8)),
    "max pool overlapping": (lambda: nn.MaxPool2d(3, 1), (1, 6, 6)),
    "max pool dilated, ceil": (lambda: nn.MaxPool2d((2, 3), 2, 1, dilation=2, ceil_mode=True), (2, 9, 8)),
    "max pool of two": (lambda: _tower(nn.MaxPool2d(2), nn.MaxPool2d(2)), (1, 8, 8)),
    "groupsort by halves": (lambda: _tower(nn.Linear(4, 6), MaxMin(), nn.Linear(6, 6), MaxMin(), nn.Linear(6, 2)),
        (4,)),
    "groupsort by pairs": (lambda: _tower(nn.Linear(4, 6), GroupSort(), nn.Linear(6, 4), Sorted()), (4,)),
    "clip": (lambda: Apply(lambda x, a: torch.clamp(a(x), -0.2, 0.3) + a(x).clamp(min=0.1) - a(x).clamp(max=0.0),
                           nn.Linear(4, 5)), (4,)),
    "clip with tensors": (lambda: Apply(lambda x: x.clamp(torch.tensor([-1.0, 0.0]), torch.tensor([0.0, 0.5]))), (2,)),
    "hard activations": (lambda: _tower(nn.Linear(4, 6), nn.ReLU6(), nn.Hardtanh(0.1, 0.9), nn.Linear(6, 6),
                                        nn.Hardsigmoid(), nn.Softshrink(0.1), nn.Hardtanh()), (4,)),
    "abs": (lambda: Apply(lambda x, a: a(x).abs() - 0.5, nn.Linear(4, 5)), (4,)),
    "leaky": (lambda: _tower(nn.Linear(4, 6), nn.LeakyReLU(0.2), nn.Linear(6, 4), nn.LeakyReLU(1.5)), (4,)),
    "prelu": (lambda: _tower(CNN(2, 3, 2), nn.PReLU(3), CNN(3, 2, 2), nn.PReLU()), (2, 5, 5)),
    "functional": (lambda: Apply(_functional, CNN(3, 4, 3), nn.Linear(11, 5)), (3, 6, 6)),
    "windows and masks": (lambda: Apply(_window, CNN(2, 2, 3)), (2, 8, 8)),
    "in place": (lambda: Apply(_in_place, CNN(2, 3, 3)), (2, 5, 5)),
    "extremes": (lambda: Apply(_extremes), (5, 5)),
    "matmuls": (lambda: Apply(_matmuls), (20,)),
    "scalars": (lambda: Apply(lambda x: (1 - x) * torch.pi / 3 + 2 * -x - torch.rsub(x, 0.3, alpha=2) + x / 0.7), (4,)),
    "transposed conv": (lambda: _tower(nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), nn.ReLU(),
                                       nn.ConvTranspose2d(4, 2, (2, 3), (3, 1), groups=2, dilation=2)), (3, 4, 5)),
    "transposed conv, wide output padding": (lambda: nn.ConvTranspose2d(2, 3, 2, 1, 1, 1, dilation=3), (2, 4, 5)),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(3, 4, 4, 2, 1), (3, 5)),
    "upsample": (lambda: _tower(nn.Upsample(scale_factor=2), CNN(2, 3, 3), nn.Upsample(size=(7, 5))), (2, 4, 4)),
    "pixel shuffle": (lambda: _tower(CNN(2, 8, 1), nn.PixelShuffle(2), nn.ChannelShuffle(2), nn.PixelUnshuffle(2)),
        (2, 4, 4)),
    "unfold": (lambda: _tower(nn.Unfold(2, stride=2), nn.Linear(4, 3)), (2, 4, 4)),
    "zero padding": (lambda: _tower(nn.ZeroPad2d(1), CNN(2, 3, 3), nn.ConstantPad2d((0, 1, 2, 0), 0.3)), (2, 4, 4)),
    "einsum": (lambda: Apply(lambda x: torch.einsum("bij,kj,jl->bkil", x, torch.linspace(-1, 1, 8).to(x).view(2, 4),
                                                    torch.linspace(0, 1, 12).to(x).view(4, 3)).relu()), (3, 4)),
    "einsum of batches": (lambda: Apply(lambda x: torch.einsum("bij,bjk->kb", x, torch.ones(1, 4, 2).to(x))), (3, 4)),
    "einsum with dots": (lambda: Apply(lambda x: torch.einsum("...ij,...jk->...ik", x, torch.linspace(
        -1, 1, 16).to(x).view(2, 4, 2)) + torch.einsum("b...,b...", x, torch.ones(1, 1, 4).to(x)).sum()), (2, 3, 4)),
    "einsum of diagonals": (lambda: Apply(lambda x: torch.einsum("bii,bij->bj", x, torch.linspace(
        -1, 1, 9).to(x).view(1, 3, 3)) + torch.einsum("bij->bi", x)), (3, 3)),
    "gated by constants": (lambda: Apply(lambda x: F.glu(torch.cat([x, torch.linspace(-2, 2, 4).to(x).view(1, 4)], 1))
                                         + F.glu(torch.cat([torch.ones(1, 4).to(x), x], 1))), (4,)),
    "anti-aliased": (lambda: Apply(lambda x: F.interpolate(x, (3, 7), mode="bilinear", antialias=True).relu().sum(1)
                                   + F.interpolate(x, (3, 7), mode="bicubic", antialias=True)[:, 0]), (2, 5, 6)),
    "read off": (lambda: Apply(lambda x: F.grid_sample(x, torch.linspace(-1, 1, 12).to(x).view(1, 2, 3, 2),
        align_corners=True).flatten(1).relu() @ torch.ones(6, 3).to(x) + torch.linalg.cross(
            x[:, 0, 0, :3], torch.linspace(0, 1, 3).to(x).view(1, 3))), (1, 3, 3)),
    "bilinear": (lambda: _tower(CNN(2, 3, 2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU(),
                                nn.Upsample(size=(5, 9), mode="bilinear", align_corners=True)), (2, 4, 5)),
    "bicubic": (lambda: nn.Upsample(size=(9, 4), mode="bicubic"), (2, 4, 5)),
    "linear, trilinear": (lambda: _tower(nn.Upsample(scale_factor=2.5, mode="linear"), nn.Unflatten(1, (1, 2, 2)),
                                         nn.Upsample(scale_factor=2, mode="trilinear")), (4, 4)),
    "cumsum": (lambda: Apply(lambda x: F.relu(x).cumsum(1) - x.cumsum(-1)), (3, 4)),
    "lerp, addcmul, addcdiv": (lambda: Apply(lambda x: torch.lerp(F.relu(x), x, 0.3) + torch.addcmul(
        x, x, torch.linspace(0, 1, 4).to(x), value=2) - torch.addcdiv(x, x, torch.full_like(x, 3.0))), (4,)),
    "instance norm with statistics": (lambda: _tower(nn.Conv1d(2, 3, 2), nn.InstanceNorm1d(
        3, affine=True, track_running_stats=True), nn.ReLU()), (2, 5)),
    "rrelu": (lambda: _tower(nn.Linear(3, 4), nn.RReLU(0.1, 0.5)), (3,)),
    "thresholds that do not jump": (lambda: _tower(nn.Linear(3, 4), nn.Threshold(0.2, 0.2), nn.Hardshrink(0.0)), (3,)),
    "powers": (lambda: Apply(lambda x: 2**x - 0.5 * x**2 + torch.exp2(x) * 3 + (x * x).relu() + x**1), (3,)),
    "squares": (lambda: Apply(lambda x: torch.cat([x * x, x], 1) + (x * x).relu().sum(1, keepdim=True)), (3,)),
    "groupsort of five": (lambda: Apply(lambda x: x.view(-1, 3, 5).sort(-1)[0] + x.view(-1, 3, 5).sort(1, True)[0]),
                          (15,)),
    "mean over everything": (lambda: Apply(lambda x: F.relu(x).mean() + F.relu(-x).sum(-1)), (2, 3)),
    "scalar per example": (lambda: _tower(nn.Linear(4, 1), nn.Flatten(0)), (4,)),
    "normalisation with buffers": (lambda: Apply(lambda x, bn: bn((x - torch.tensor([0.1, 0.2]).view(1, 2, 1)) / 0.3),
                                                 nn.BatchNorm1d(2)), (2, 3)),
}  # fmt: skip


def prepared(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = make().double()
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d)):
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, -1.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
        if isinstance(part, nn.PReLU):
            nn.init.uniform_(part.weight, -0.5, 1.5)
    return model


def agrees(network: Network, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Values, and gradients of the outputs, at random points."""
    model.eval()
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    for point in x:
        y = model(point[None]).reshape(-1)
        ours = network.values(point.detach().reshape(-1))
        torch.testing.assert_close(ours[-1], y, rtol=1e-9, atol=1e-9)
        rows = torch.randn(2, network.out_size, dtype=torch.float64)
        if y.requires_grad:
            gradients = torch.stack(
                [torch.autograd.grad(row @ y, point, retain_graph=True)[0].reshape(-1) for row in rows]
            )
            # torch's own derivative of hardsigmoid takes 1/6 in float32
            close = 1e-9 if not any(isinstance(part, nn.Hardsigmoid) for part in model.modules()) else 1e-7
            torch.testing.assert_close(network.pull_back(network.slopes(ours), rows), gradients, rtol=close, atol=1e-9)


def exported_to(module: nn.Module, path: Path, shape: tuple[int, ...], *, dynamic: bool = False) -> Path:
    """The module as a file of an exported program."""
    example = torch.zeros(2 if dynamic else 1, *shape, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},) if dynamic else None
        )
        torch.export.save(program, path)
    return path
