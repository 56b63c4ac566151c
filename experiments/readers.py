"""Readers of the canonical file formats: IDX, CIFAR-10 batches, the Tiny ImageNet folder, the Adult tables."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, final

import numpy as np

from lipcompare.errors import InvalidInput


class Split(NamedTuple):
    """Inputs (n, ...), images as bytes and all else in float64, and labels (n,)."""

    x: np.ndarray
    y: np.ndarray


_ORIGINS = {
    "MNIST": "the IDX files of MNIST (LeCun, Cortes and Burges)",
    "CIFAR-10": "'CIFAR-10 python version' from Alex Krizhevsky's page at the University of Toronto",
    "Tiny ImageNet": "the archive tiny-imagenet-200.zip of Stanford's course CS231N",
    "Adult": "the data set 'Adult' of the UCI Machine Learning Repository",
}


def _missing(data: str, wanted: str, folder: Path) -> NoReturn:
    raise InvalidInput(
        f"{data} needs {wanted}: take it from {_ORIGINS[data]} and put it into {folder}, or name another folder with "
        "--data-root or LIPCOMPARE_DATA."
    )


def _folder(root: Path, *candidates: str, holding: str) -> Path:
    """The first of several folders under the root that has a file matching the pattern, else the first."""
    folders = [root / name for name in candidates]
    return next((f for f in folders if any(f.glob(holding))), folders[0])


def mnist(root: Path) -> tuple[Split, Split]:
    """Training and test images (n, 1, 28, 28)."""
    folder = _folder(root, "mnist", "MNIST/raw", ".", holding="t10k-images*")
    splits = []
    for part in ("train", "t10k"):
        images, labels = (_idx_file(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InvalidInput(
                f"The MNIST files in {folder} do not fit each other: images {images.shape}, labels {labels.shape}; "
                "copy all four again."
            )
        splits.append(Split(images[:, None], labels.astype(np.int64)))
    return splits[0], splits[1]


def _idx_file(folder: Path, name: str) -> np.ndarray:
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.is_file():
        return read_idx(plain.read_bytes(), plain)
    if not packed.is_file():
        _missing("MNIST", f"{name}.gz (or {name})", folder)
    try:
        return read_idx(gzip.decompress(packed.read_bytes()), packed)
    except (OSError, EOFError, zlib.error):
        raise InvalidInput(f"{packed} is not a complete gzip file: copy it again.") from None


def read_idx(data: bytes, source: Path) -> np.ndarray:
    """An array of bytes in the IDX format."""
    header = 4 + 4 * data[3] if len(data) > 3 else 4
    if len(data) < header or data[:3] != b"\x00\x00\x08":
        raise InvalidInput(f"{source} is not an IDX file of bytes: copy it again.")
    shape = tuple(np.frombuffer(data, ">u4", count=data[3], offset=4).tolist())
    if len(data) - header != np.prod(shape, dtype=np.int64):
        raise InvalidInput(f"{source} has {len(data) - header} bytes where its header says {shape}: copy it again.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


@final
class _ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays, strings, numbers and containers; anything that could run code is refused."""

    _ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        # numpy.core is an alias that warns since numpy 2.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def cifar10(root: Path) -> tuple[Split, Split]:
    """Training and test images (n, 3, 32, 32), from however many rows each batch has."""
    folder = _folder(
        root, "cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar10", ".", holding="test_batch"
    )  # fmt: skip
    batches = [_cifar_batch(folder / f"data_batch_{k}") for k in range(1, 6)]
    train = Split(np.concatenate([b.x for b in batches]), np.concatenate([b.y for b in batches]))
    return train, _cifar_batch(folder / "test_batch")


def _cifar_batch(path: Path) -> Split:
    if not path.is_file():
        _missing("CIFAR-10", path.name, path.parent)
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        x, y = np.asarray(content[b"data"]), np.asarray(content[b"labels"], dtype=np.int64)
        x = x.reshape(len(y), 3, 32, 32).astype(np.uint8, casting="safe")
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InvalidInput(f"{path} is not a CIFAR-10 batch ({error}): copy it again.") from None
    return Split(x, y)


def tiny_imagenet(root: Path, name: str) -> tuple[Split, Split, int]:
    """Training and validation images (n, 3, 64, 64), and the number of classes, which wnids.txt gives."""
    folder = _folder(root, name, f"tiny_imagenet/{name}", holding="wnids.txt")
    listing = folder / "wnids.txt"
    if not listing.is_file():
        _missing("Tiny ImageNet", "wnids.txt and the folders train and val", folder)
    classes = {wnid: k for k, wnid in enumerate(listing.read_text().split())}
    train = [(p, k) for wnid, k in classes.items() for p in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))]
    annotations = folder / "val" / "val_annotations.txt"
    if not train or not annotations.is_file():
        _missing("Tiny ImageNet", "train/*/images/*.JPEG" if not train else "val/val_annotations.txt", folder)
    fields = [line.split("\t") for line in annotations.read_text().splitlines() if line.strip()]
    val = [(folder / "val" / "images" / f[0], classes[f[1]]) for f in fields if len(f) > 1 and f[1] in classes]
    return _images(train), _images(val), len(classes)


def _images(files: list[tuple[Path, int]]) -> Split:
    from PIL import Image, UnidentifiedImageError

    x = np.empty((len(files), 3, 64, 64), dtype=np.uint8)
    for k, (path, _) in enumerate(files):
        try:
            with Image.open(path) as image:
                x[k] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except FileNotFoundError:
            _missing("Tiny ImageNet", path.name, path.parent)
        except (UnidentifiedImageError, OSError, ValueError):
            raise InvalidInput(f"{path} is not a 64x64 JPEG image: copy it again.") from None
    return Split(x, np.array([label for _, label in files], dtype=np.int64))


_ADULT = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country",
)  # fmt: skip
ADULT_CONTINUOUS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")


def adult(root: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Training and test rows, and the features' names: the continuous ones first, then ``column=value``.

    An unknown entry, "?", is a value like any other; the values are those of the training rows.
    """
    folder = _folder(root, "adult", ".", holding="adult.data")
    train, test = (_adult_rows(folder / name) for name in ("adult.data", "adult.test"))
    column = {name: k for k, name in enumerate(_ADULT)}
    continuous = [column[name] for name in ADULT_CONTINUOUS]
    numbers = _adult_numbers(train, continuous, folder / "adult.data")
    low, width = numbers.min(0), np.ptp(numbers, axis=0)
    width = np.where(width > 0, width, 1.0)
    values = [(k, sorted({row[k] for row in train})) for name, k in column.items() if name not in ADULT_CONTINUOUS]
    features = (*ADULT_CONTINUOUS, *(f"{_ADULT[k]}={v}" for k, known in values for v in known))

    def encode(rows: list[list[str]], name: str) -> Split:
        scaled = (_adult_numbers(rows, continuous, folder / name) - low) / width
        one_hot = [np.array([row[k] for row in rows])[:, None] == np.array(known)[None] for k, known in values]
        labels = np.array([row[-1].rstrip(".") == ">50K" for row in rows], dtype=np.int64)
        return Split(np.concatenate([scaled, *one_hot], axis=1).astype(np.float64), labels)

    return encode(train, "adult.data"), encode(test, "adult.test"), features


def _adult_rows(path: Path) -> list[list[str]]:
    if not path.is_file():
        _missing("Adult", path.name, path.parent)
    rows = [[field.strip() for field in line.split(",")] for line in path.read_text().splitlines()]
    rows = [row for row in rows if len(row) == len(_ADULT) + 1]
    if not rows:
        raise InvalidInput(f"{path} has no rows of {len(_ADULT) + 1} fields separated by commas: copy it again.")
    return rows


def _adult_numbers(rows: list[list[str]], columns: list[int], path: Path) -> np.ndarray:
    try:
        return np.array([[float(row[k]) for k in columns] for row in rows])
    except ValueError as error:
        raise InvalidInput(f"{path} has text where a number belongs ({error}): copy it again.") from None
