"""Processes of per_sample from programs: scripts, with a guard and without, and no file."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run_script(
    tmp_path: Path, code: str, *, stdin: bool = False
) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-" if stdin else script],
        input=script.read_text() if stdin else None,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_program_that_is_no_file_is_told(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        from pgest.rewards import per_sample
        def f(hypothesis, references):
            return 1
        if __name__ == "__main__":
            per_sample(f, processes=1)(["a"], ["a"])
        """,
        stdin=True,
    )
    assert done.returncode == 1
    assert "imports the program that is run, and <stdin> is no file: save it" in done.stderr
    assert "__main__" not in done.stderr.splitlines()[-1]


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        from pgest.rewards import per_sample
        def f(hypothesis, references):
            return 1
        per_sample(f, processes=1)(["a"], ["a"])
        """,
    )
    assert done.returncode == 1
    assert "RuntimeError: a process for per_sample could not start" in done.stderr
    assert "under `if __name__ == '__main__':`" in done.stderr


def test_a_script_scores_and_leaves_no_process_behind(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import os
        from pgest.rewards import per_sample
        def f(hypothesis, references):
            return os.getpid()
        if __name__ == "__main__":
            print(int(per_sample(f, processes=1)(["a"], ["a"]).item()))
        """,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
