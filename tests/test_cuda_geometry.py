"""The CUDA launch geometry, which is plain C++: compiled and run on the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cuda" / "geometry_test.cc"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_every_row_has_its_team(tmp_path: Path) -> None:
    program = tmp_path / "geometry"
    command = ["c++", "-std=c++20", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "geometry holds" in done.stdout
