"""Runs of `pgest run TASK` in folders of their own: what is done is not run again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def finished_run(task: str, place: Path, flags: str, more: Sequence[str] = ()) -> Path:
    """Return the folder of the run in `place` that has these flags: run it, or go on with it.

    `more` are flags that may differ between calls, such as paths. Runs take one thread.

    Raises:
        ValueError: where `place` holds a run with other flags.
        subprocess.CalledProcessError: for a run that fails; its output is in `log.txt`.
    """
    folders, note = sorted(place.glob(f"{task}-*")), place / "flags.txt"
    if folders and note.read_text(encoding="utf-8") != flags:
        raise ValueError(f"{place} must hold a run with the flags {flags!r}: remove it")
    if folders and (folders[-1] / "record.json").exists():
        return folders[-1]
    command = [sys.executable, "-m", "pgest", "run", task]
    if folders and (folders[-1] / "checkpoint.safetensors").exists():
        command += ["--resume", str(folders[-1])]
    else:
        command += [*flags.split(), "--threads", "1", "--no-tensorboard", "--output", str(place)]
        command += more
    print("$", " ".join(command[1:]), flush=True)
    place.mkdir(parents=True, exist_ok=True)
    note.write_text(flags, encoding="utf-8")
    with open(place / "log.txt", "a", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, check=True)
    return sorted(place.glob(f"{task}-*"))[-1]
