"""The CUDA kernels, run without a GPU: their own sources over an emulator of CUDA's threads.

An extension whose ops on CPU tensors run them is built, and files of tests run against it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = (
    "test_token_stats.py",
    "test_full_stats.py",
    "test_full_stats_arguments.py",
    "test_full_stats_refusals.py",
    "test_values.py",
    "test_grad_inplace.py",
    "test_stats_gradient.py",
    "test_token_stats_sum.py",
    "test_sample.py",
    "test_sample_laws.py",
    "test_sample_refusals.py",
    "test_row_threshold.py",
    "test_gumbel_softmax.py",
    "test_straight_through.py",
    "test_bits.py",
    "test_op_noise.py",
    "test_ops.py",
)
LEFT_OUT = (
    # Sums without fused multiply-add round a little more than what "closer" compares with.
    "closer and linear",
    # Minutes for what other tests find: many draws of many tokens, rows for gigabytes of views, the
    # products of linear ops, which are torch's, several times, and how torch has been told of ops.
    "frequencies and 32000",
    "grid and (5000 or 32000)",
    "no_place_is_preferred",
    "a_view_is_read_in_place",
    "opcheck",
    "number_of_threads and linear",
)

pytestmark = pytest.mark.slow


def python(*args: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PGEST_REQUIRE_KERNELS": "1", "PGEST_TEST_DEVICE": "cpu", **variables}
    command = [sys.executable, *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_cuda_kernels_pass_the_tests_of_ops(tmp_path: Path) -> None:
    build = ("setup.py", "--quiet", "build", "--build-base", str(tmp_path))
    built = python(*build, cwd=ROOT, PGEST_CUDA="emulate", PGEST_BUILD="1")
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (library,) = tmp_path.glob("lib*")
    path = str(library)
    shown = python("-c", "import pgest; print(pgest.__file__)", cwd=tmp_path, PYTHONPATH=path)
    assert shown.stdout.strip() == f"{library}/pgest/__init__.py"
    which = " and ".join(f"not ({tests})" for tests in LEFT_OUT)
    tests = ("-q", "-p", "no:cacheprovider", "-k", which, *(f"{ROOT}/tests/{n}" for n in FILES))
    done = python("-m", "pytest", *tests, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout[-3000:]
