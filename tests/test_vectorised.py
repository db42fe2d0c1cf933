"""Hot loops stay vectorised: the instructions are read, because a timed test would be noise."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

import pgest

# Width of the registers that each clone must compute in.
CLONES = {"arch_x86_64_v4": "zmm", "arch_x86_64_v3": "ymm"}
LOOPS = (
    "forward_rows",
    "backward_rows",
    "full_forward_rows",
    "full_backward_rows",
    "threshold_rows",
    "sample_rows",
    "soft_rows",
    "hard_rows",
    "jacobian_rows",
    "forward_bits",
    "backward_bits",
    "draw_bits",
)
TYPES = ("double", "float", "BFloat16", "Half")

pytestmark = [
    pytest.mark.xdist_group("vectorised"),
    pytest.mark.skipif(
        platform.machine() != "x86_64" or shutil.which("objdump") is None,
        reason="reads x86-64 assembly with objdump",
    ),
]


@pytest.fixture(scope="module")
def assembly() -> dict[str, str]:
    """Every function of the extension by its demangled name."""
    from pgest import _C

    assert pgest.backend() == "native"
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", _C.__file__]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    blocks = re.split(r"^[0-9a-f]+ <(.*)>:$", text, flags=re.MULTILINE)[1:]
    return dict(zip(blocks[::2], blocks[1::2], strict=True))


@pytest.mark.parametrize("clone", CLONES)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", TYPES)
def test_hot_loops_use_the_full_register(
    assembly: dict[str, str], clone: str, loop: str, kind: str
) -> None:
    names = [
        n
        for n in assembly
        if f"::{loop}<" in n and clone in n and f"{kind}>" in n and "cold" not in n
    ]
    assert names, f"no clone {clone} of {loop} for {kind}"
    for name in names:
        packed = re.findall(rf"vf(?:n?)m(?:add|sub)\d+p[sd] .*%{CLONES[clone]}", assembly[name])
        assert len(packed) >= 5, f"{name} is not vectorised: {len(packed)} packed operations"
