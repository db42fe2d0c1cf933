"""What is shipped, built once for all tests that need it: `conftest.py` has the fixtures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# A build in one instruction set, to be done sooner: the one that every processor has.
ONE_SET = {
    "CFLAGS": "-DPGEST_NO_CLONES",
    "CXXFLAGS": "-DPGEST_NO_CLONES",
    "PGEST_CUDA": "0",
}


def python(*args: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """This Python in a fresh process, away from the source tree and its environment variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PGEST_")}
    command = [sys.executable, *args]
    return subprocess.run(
        command, cwd=cwd, env=env | variables, capture_output=True, text=True, check=False
    )


def succeed(*args: str, cwd: Path, **variables: str) -> str:
    """What it prints; failure is the test's failure."""
    done = python(*args, cwd=cwd, **variables)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def install(source: Path, target: Path, **variables: str) -> None:
    """Install without touching the environment or a package index."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    where = ["--target", str(target), str(source)]
    succeed("-m", "pip", "install", *options, *where, cwd=source.parent, **variables)
