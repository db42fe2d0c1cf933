"""Every instruction set that a binary can pick computes the same: each is built and checked."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from shipped import ONE_SET, ROOT, succeed

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
# Chooses the instruction set for all that includes it, as a clone does for a function. GCC reads a
# whole file before the pragma takes effect: too late for the macro.
AVX2 = """
#pragma GCC target("arch=x86-64-v3")
#define __AVX2__ 1
#define PGEST_CLONES
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("packaging"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="builds for x86-64"),
]


def check(library: Path, isa: str, which: str) -> None:
    """Run the tests on what is in `library`."""
    given = {"PYTHONPATH": str(library), "PGEST_REQUIRE_KERNELS": "1"}
    show = "import pgest; print(pgest.__file__, pgest.build_info()['isa'])"
    shown = succeed("-c", show, cwd=library, **given)
    assert shown.strip() == f"{library}/pgest/__init__.py {isa}, fixed when built"
    tests = [str(ROOT / "tests" / name) for name in FILES]
    options = ["-q", "-p", "no:cacheprovider", "-k", CHECKS + which]
    succeed("-m", "pytest", *options, *tests, cwd=library, **given)


def test_the_oldest_processors_get_the_same_numbers(installed: Path) -> None:
    check(installed, "baseline", CLOSER_BASELINE)


@pytest.mark.usefixtures("wheel")
def test_processors_with_avx2_get_the_same_numbers(sdist: Path, tmp_path: Path) -> None:
    """Built where the wheel was, so that only what reads the exchanged header is compiled again."""
    (sdist / "csrc" / "clones.h").write_text(AVX2)
    build = ("setup.py", "--quiet", "build", "--build-lib", str(tmp_path))
    succeed(*build, cwd=sdist, **ONE_SET)
    check(tmp_path, "x86-64-v3 (AVX2, FMA)", CLOSER)
