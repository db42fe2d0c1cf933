"""What a run leaves behind for those who want to repeat it."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import pgest

_PACKAGES = ("torch", "numpy", "rapidfuzz", "safetensors", "g2p-en")


def environment(device: str) -> dict[str, Any]:
    """Return versions, the device and the commit of the sources, for a run's record.

    `commit` is None outside a git checkout, and ends in `+changes` where files differ from it.
    """
    cuda = torch.device(device).type == "cuda"
    return {
        "python": platform.python_version(),
        "packages": {"pgest": pgest.__version__, **{name: _version(name) for name in _PACKAGES}},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "threads": torch.get_num_threads(),
        "commit": _commit(Path(__file__).parent),
    }


def to_json(record: Mapping[str, Any]) -> str:
    """Return the record as JSON; dataclasses become objects and paths strings."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.dumps(record, indent=1, default=plain) + "\n"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name, which only Linux keeps in a file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _commit(folder: Path) -> str | None:
    """Return the commit of the checkout that tracks this file, None where there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "record.py")
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
