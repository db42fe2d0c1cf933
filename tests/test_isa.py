"""Every instruction set that a binary can pick computes the same: each is built and checked."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = (
    "test_ops.py",
    "test_token_stats.py",
    "test_grad_inplace.py",
    "test_stats_gradient.py",
    "test_token_stats_sum.py",
    "test_full_stats.py",
    "test_row_threshold.py",
    "test_sample.py",
)
CHECKS = "definition or extreme or duplicate or chosen or same_bits or rise or "
CLOSER = "closer"
# Without fused multiply-add sums round a little more: KL, the gradient of what is drawn at a
# temperature, and gradients through a head, by more than plain PyTorch's.
CLOSER_BASELINE = "(closer and not divergences and not linear and not (sample and temperature))"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64"),
]


@pytest.mark.parametrize(
    ("march", "isa", "closer"),
    [
        ("x86-64", "baseline", CLOSER_BASELINE),
        ("x86-64-v3", "x86-64-v3 (AVX2, FMA)", CLOSER),
    ],
)
def test_older_processors_get_the_same_numbers(
    march: str, isa: str, closer: str, tmp_path: Path
) -> None:
    flags = f"-DPGEST_NO_CLONES -march={march}"
    env = {**os.environ, "CFLAGS": flags, "CXXFLAGS": flags, "PGEST_CUDA": "0"}
    env["PGEST_REQUIRE_KERNELS"] = "1"
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, env=env, check=True, capture_output=True)
    (library,) = tmp_path.glob("lib*")
    env["PYTHONPATH"] = str(library)
    show = "import pgest; print(pgest.__file__, pgest.build_info()['isa'])"
    command = [sys.executable, "-c", show]
    shown = subprocess.run(
        command, cwd=tmp_path, env=env, check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == f"{library}/pgest/__init__.py {isa}, fixed when built"
    tests = [str(ROOT / "tests" / name) for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-k", CHECKS + closer, *tests]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
