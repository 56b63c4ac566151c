"""Readers of the canonical formats, on tiny files made here; and the data that need no files."""

from __future__ import annotations

import gzip
import pickle
import subprocess

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import data_root, dataset
from experiments.models import MODELS
from lipcompare.errors import InvalidInput

RANDOM = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, count in (("train", 5), ("t10k", 3)):
        images = RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8)))
    return tmp_path


def test_mnist(mnist) -> None:
    read = dataset("mnist", mnist)
    assert read.train.x.shape == (5, 1, 28, 28)
    assert read.test.y.tolist() == [0, 1, 2]
    x = read.normalised(read.test.x)
    assert x.dtype == np.float32
    assert 0.9 < x.max() <= 1
    assert x.min() >= 0


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named_with_its_source_and_its_place(mnist, name) -> None:
    (mnist / "mnist" / name).unlink()
    with pytest.raises(InvalidInput, match=rf"{name.removesuffix('.gz')}.*LeCun.*put it into .*mnist.*--data-root"):
        dataset("mnist", mnist)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train-images-idx3-ubyte.gz", b"no gzip", "copy it again"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"x" * 900)[:60], "copy it again"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"no idx at all"), "not an IDX file"),
        ("t10k-labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 9, 1]), r"has 1 bytes where its header says \(9,\)"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(7, np.uint8)), "do not fit each other"),
    ],
    ids=["no gzip", "cut off", "no idx", "too short", "too many"],
)
def test_broken_mnist_files(mnist, name, content, says) -> None:
    (mnist / "mnist" / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        dataset("mnist", mnist)


def cifar_batch(count: int) -> dict[bytes, object]:
    return {b"data": RANDOM.integers(0, 256, (count, 3072), dtype=np.uint8), b"labels": [k % 10 for k in range(count)]}


@pytest.fixture
def cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", *(f"data_batch_{k}" for k in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(cifar_batch(4), protocol=2))
    return tmp_path


def test_cifar10(cifar) -> None:
    read = dataset("cifar10", cifar)
    assert read.train.x.shape == (20, 3, 32, 32)
    assert read.test.y.tolist() == [0, 1, 2, 3]
    black = np.zeros((1, 3, 32, 32), np.uint8)
    np.testing.assert_allclose(read.normalised(black)[0, :, 0, 0], -np.array(read.mean) / read.std, rtol=1e-6)


class Harmful:
    def __reduce__(self):
        return subprocess.call, (["touch", "harm"],)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Harmful()),
        pickle.dumps({b"data": 1}),
        pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [1]}),
        pickle.dumps(cifar_batch(2))[:100],
        b"",
    ],
    ids=["code", "no labels", "wrong shape", "cut off", "empty"],
)
def test_broken_or_harmful_cifar_batches(cifar, content, monkeypatch) -> None:
    monkeypatch.chdir(cifar)
    (cifar / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"data_batch_2 is not a CIFAR-10 batch.*copy it again"):
        dataset("cifar10", cifar)
    assert not (cifar / "harm").exists()


def test_missing_cifar_batch(cifar) -> None:
    (cifar / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(InvalidInput, match=r"needs data_batch_3.*Krizhevsky.*cifar-10-batches-py"):
        dataset("cifar10", cifar)


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("n02\nn01\n")
    for wnid, mode in (("n01", "RGB"), ("n02", "L")):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        Image.new(mode, (64, 64), 128 if mode == "L" else (255, 0, 0)).save(images / f"{wnid}_0.JPEG")
    Image.new("RGB", (64, 64), (0, 0, 255)).save(folder / "val" / "images" / "val_0.JPEG")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t62\t62\n")
    return tmp_path


def test_tiny_imagenet(tiny) -> None:
    read = dataset("tiny_imagenet", tiny)
    assert read.classes == 2
    assert read.train.y.tolist() == [0, 1]
    assert read.test.y.tolist() == [1]
    assert read.train.x.shape == (2, 3, 64, 64)
    assert read.train.x[0].mean() == 128
    assert read.train.x[1, 0].min() > 250


def test_broken_tiny_imagenet(tiny) -> None:
    folder = tiny / "tiny-imagenet-200"
    (folder / "val" / "images" / "val_0.JPEG").write_bytes(b"no image")
    with pytest.raises(InvalidInput, match=r"val_0\.JPEG is not a 64x64 JPEG image"):
        dataset("tiny_imagenet", tiny)
    (folder / "val" / "images" / "val_0.JPEG").unlink()
    with pytest.raises(InvalidInput, match=r"needs val_0\.JPEG.*CS231N"):
        dataset("tiny_imagenet", tiny)
    (folder / "wnids.txt").unlink()
    with pytest.raises(InvalidInput, match=r"needs wnids\.txt.*CS231N"):
        dataset("tiny_imagenet", tiny)


ADULT = """39, State-gov, 77516, Bachelors, 13, Never-married, Sales, Husband, White, Male, 2174, 0, 40, Cuba, <=50K
59, ?, 177516, Masters, 14, Divorced, ?, Wife, Black, Female, 0, 5, 20, ?, >50K

"""


@pytest.fixture
def adult(tmp_path):
    folder = tmp_path / "adult"
    folder.mkdir()
    (folder / "adult.data").write_text(ADULT)
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + ADULT.replace("K\n", "K.\n").replace("59,", "49,"))
    return tmp_path


def test_adult(adult) -> None:
    read = dataset("adult", adult)
    assert read.features[:6] == ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
    assert read.features[6:8] == ("workclass=?", "workclass=State-gov")
    assert read.train.x.shape == (2, 6 + 2 * 8)
    assert read.test.y.tolist() == [0, 1]
    assert read.test.x[:, 0].tolist() == [0.0, 0.5]
    np.testing.assert_array_equal(read.train.x[:, 6:].sum(1), [8, 8])


def test_broken_adult(adult) -> None:
    (adult / "adult" / "adult.data").write_text(ADULT.replace("39", "many"))
    with pytest.raises(InvalidInput, match="text where a number belongs"):
        dataset("adult", adult)
    (adult / "adult" / "adult.data").write_text("nothing\n")
    with pytest.raises(InvalidInput, match="no rows of 15 fields"):
        dataset("adult", adult)
    (adult / "adult" / "adult.data").write_text(ADULT)
    (adult / "adult" / "adult.test").unlink()
    with pytest.raises(InvalidInput, match=r"needs adult\.test.*UCI"):
        dataset("adult", adult)


@pytest.mark.parametrize("name", ["digits", "clusters16", "clusters64"])
def test_data_without_files(name, tmp_path) -> None:
    first, second = dataset(name, tmp_path), dataset(name, tmp_path)
    np.testing.assert_array_equal(first.train.x, second.train.x)
    assert set(first.train.y) == set(range(10))
    assert abs(len(first.test.y) / (len(first.train.y) + len(first.test.y)) - 0.3) < 0.01
    assert 0 <= first.train.x.min() <= first.train.x.max() <= 1


def test_every_model_takes_the_shape_of_its_data() -> None:
    without_files = {name: dataset(name) for name in ("digits", "clusters16", "clusters64")}
    checked = [m for m in MODELS.values() if m.data in without_files]
    assert len(checked) > 10
    for model in checked:
        assert without_files[model.data].train.x.shape[1:] == model.input_shape
    assert {m.data for m in MODELS.values()} <= set(data.DATASETS)


def test_the_data_root(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("LIPCOMPARE_DATA", raising=False)
    assert str(data_root()) == "data"
    monkeypatch.setenv("LIPCOMPARE_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert str(data_root("here")) == "here"
    with pytest.raises(InvalidInput, match="Did you mean 'mnist'"):
        dataset("mnst")


def test_the_command_writes_examples(mnist, tmp_path, capsys) -> None:
    out, labels = tmp_path / "x.npy", tmp_path / "y.npy"
    arguments = ["mnist", "--data-root", str(mnist), "--count", "2", "--out", str(out), "--labels", str(labels)]
    assert data.main(arguments) == 0
    assert np.load(out).shape == (2, 1, 28, 28)
    assert np.load(labels).tolist() == [0, 1]
    assert data.main(["adult", "--data-root", str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    assert "adult.data" in capsys.readouterr().err


def test_the_shared_copies(shared) -> None:
    assert dataset("mnist", shared / "data").test.x.shape == (10_000, 1, 28, 28)
    assert dataset("cifar10", shared / "data").test.x.shape[1:] == (3, 32, 32)
    adult = dataset("adult", shared / "data")
    assert adult.train.x.shape == (32_561, 108)
    assert adult.test.x.shape == (16_281, 108)
