"""The CUDA kernels, run without a GPU: their own sources over an emulator of CUDA's threads.

An extension whose ops on CPU tensors run them is built once, and files of tests run against it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Files, and which of their tests: all, if empty.
CHECKS = [
    ("test_token_stats.py", ""),
    ("test_full_stats.py", ""),
    ("test_full_stats_arguments.py", ""),
    ("test_full_stats_refusals.py", ""),
    ("test_values.py", ""),
    ("test_grad_inplace.py", ""),
    ("test_sample.py", ""),
    ("test_row_threshold.py", ""),
    ("test_gumbel_softmax.py", ""),
    ("test_straight_through.py", ""),
    ("test_bits.py", ""),
    # Sums without fused multiply-add round a little more than what "closer" compares with.
    ("test_ops.py", "not (closer and linear)"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pgest whose kernels are the CUDA ones."""
    folder = tmp_path_factory.mktemp("emulated")
    env = {**os.environ, "PGEST_CUDA": "emulate", "PGEST_BUILD": "1"}
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(folder)]
    subprocess.run(build, cwd=ROOT, env=env, check=True, capture_output=True)
    (library,) = folder.glob("lib*")
    return library


@pytest.mark.parametrize(("name", "which"), CHECKS)
def test_cuda_kernels_pass_the_tests_of_ops(
    name: str, which: str, emulated: Path, tmp_path: Path
) -> None:
    env = {**os.environ, "PYTHONPATH": str(emulated), "PGEST_REQUIRE_KERNELS": "1"}
    env["PGEST_TEST_DEVICE"] = "cpu"
    shown = subprocess.run(
        [sys.executable, "-c", "import pgest; print(pgest.__file__)"],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == f"{emulated}/pgest/__init__.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-k", which, str(ROOT / "tests" / name)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
