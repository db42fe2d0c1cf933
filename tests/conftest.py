"""Fixtures that several files share, and the order of the tests."""

import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shipped import ONE_SET, ROOT, install, succeed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, so that the processes that share the tests end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: the processes that tests are spread over ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked; built from a copy that holds no build products."""
    tree = tmp_path_factory.mktemp("tree") / "pgest"
    for folder in ("csrc", "pgest", "tests"):
        made = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / folder, tree / folder, ignore=made)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, tree)
    succeed("-m", "build", "--sdist", "--no-isolation", cwd=tree)
    (archive,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tree.parent)
    return tree.parent / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session")
def wheel(sdist: Path) -> Path:
    """The wheel that the source distribution builds, in one instruction set."""
    succeed("-m", "build", "--wheel", "--no-isolation", cwd=sdist, **ONE_SET)
    (archive,) = (sdist / "dist").glob("*.whl")
    return archive


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed in."""
    site = tmp_path_factory.mktemp("installed") / "site"
    install(wheel, site)
    return site
