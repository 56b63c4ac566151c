"""Train a model of the study with the paper's protocol, once: later calls read it from the cache.

    python -m experiments.train digits_mlp
    python -m experiments.train mnist_mlp --data-root ../shared/data --seed 1

Adam with rate 1e-3, batches of 256, 10 epochs, cross entropy. A cached model lies in a file whose name carries a hash
of everything that determines it: architecture, data, protocol and seed. A .json file beside it has its test accuracy.

One thread trains, so that the weights do not depend on how many cores there are. They depend, in their last digits and
from there on, on the instructions that torch finds in the processor: with ATEN_CPU_CAPABILITY=avx2,
ONEDNN_MAX_CPU_ISA=AVX2 and MKL_ENABLE_INSTRUCTIONS=AVX2 in the environment they are those of docs/results.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.data import Dataset, dataset
from experiments.models import MODELS, Model, model
from lipcompare.errors import InvalidInput, LipcompareError
from lipcompare.network.environment import computing

CACHE = Path("results") / "models"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How to train; the defaults are the paper's."""

    epochs: int = 10
    batch: int = 256
    rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1 or not self.rate > 0:
            raise InvalidInput("Training needs epochs of at least 0, a batch of at least 1 and a positive rate.")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model, in evaluation mode on the CPU.

    Attributes:
        accuracy: on the whole test set.
        path: the cached weights.
    """

    model: Model
    module: nn.Sequential
    accuracy: float
    path: Path


def trained(
    name: str,
    protocol: Protocol = Protocol(),
    *,
    data_root: str | Path | None = None,
    cache: Path = CACHE,
    device: str = "cpu",
    on_epoch: Callable[[str], None] | None = None,
) -> Trained:
    """The model called ``name``, from the cache or trained now.

    Args:
        on_epoch: told after every epoch of a training how far it is, in words.

    Raises:
        InvalidInput: an unknown model, or missing data.
    """
    chosen = model(name)
    data = dataset(chosen.data, data_root)
    torch.manual_seed(protocol.seed)
    module = chosen.build()
    path = cache / f"{name}-s{protocol.seed}-{fingerprint(module, data, protocol)}.pt"
    record = path.with_suffix(".json")
    if path.exists() and record.exists():
        module.load_state_dict(torch.load(path, weights_only=True))
        return Trained(chosen, module.eval(), float(json.loads(record.read_text())["accuracy"]), path)
    tell = None if on_epoch is None else lambda text: on_epoch(f"training {name}: {text}")
    with computing(threads=1), torch.enable_grad():
        fit(module.to(device), data, protocol, device, on_epoch=tell)
    accuracy = accuracy_on(module, data, device)
    module = module.cpu()
    cache.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "model": name,
        "data": data.name,
        "accuracy": accuracy,
        "train_examples": len(data.train.y),
        "test_examples": len(data.test.y),
        "protocol": dataclasses.asdict(protocol),
        "torch": str(torch.__version__),
    }
    with _whole(path) as unfinished:
        torch.save(module.state_dict(), unfinished)
    with _whole(record) as unfinished:
        unfinished.write_text(json.dumps(facts, indent=2) + "\n")
    return Trained(chosen, module, accuracy, path)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file that takes its name once it is written: a run that is killed leaves no half of one for the next."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def fingerprint(module: nn.Module, data: Dataset, protocol: Protocol) -> str:
    """Twelve hexadecimal digits that change with the architecture, the training data or the protocol."""
    digest = hashlib.sha256(repr((str(module), protocol, data.name, data.mean, data.std, data.augment)).encode())
    for array in data.train:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def fit(
    module: nn.Module,
    data: Dataset,
    protocol: Protocol,
    device: str = "cpu",
    *,
    on_epoch: Callable[[str], None] | None = None,
) -> None:
    """Train in place, and leave the module in evaluation mode."""
    random = torch.Generator().manual_seed(protocol.seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=protocol.rate)
    y = torch.from_numpy(data.train.y)
    module.train()
    for epoch in range(protocol.epochs):
        for part in torch.randperm(len(y), generator=random).split(protocol.batch):
            x = torch.from_numpy(data.normalised(data.train.x[part.numpy()]))
            if data.augment:
                x = _augmented(x, random)
            loss = nn.functional.cross_entropy(module(x.to(device)), y[part].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if on_epoch is not None:
            on_epoch(f"epoch {epoch + 1} of {protocol.epochs}, loss {float(loss.detach()):.3g}")
    module.eval()


def accuracy_on(module: nn.Module, data: Dataset, device: str = "cpu") -> float:
    """Share of the test set that is classified correctly."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(data.test.y), 512):
            x = torch.from_numpy(data.normalised(data.test.x[start : start + 512])).to(device)
            right += int((module(x).argmax(1).cpu().numpy() == data.test.y[start : start + 512]).sum())
    return right / len(data.test.y)


def _augmented(x: Tensor, random: torch.Generator) -> Tensor:
    """Each image flipped with probability one half, then cropped at random from itself with a border of 4 zeros."""
    n, _, height, width = x.shape
    flip = torch.rand(n, generator=random) < 0.5
    x = torch.where(flip[:, None, None, None], x.flip(-1), x)
    x = nn.functional.pad(x, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, n), generator=random)
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    return x[torch.arange(n)[:, None, None, None], torch.arange(x.shape[1])[:, None, None], rows, columns]


def main(arguments: list[str] | None = None) -> int:
    """Train or read one model and print its accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--data-root", help="folder with the data sets (default: $LIPCOMPARE_DATA, else data)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for trained models (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=Protocol.epochs)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    protocol = Protocol(epochs=chosen.epochs, seed=chosen.seed)
    try:
        done = trained(chosen.name, protocol, data_root=chosen.data_root, cache=chosen.cache, device=chosen.device)
    except LipcompareError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.name}: test accuracy {done.accuracy:.2%}, {done.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
