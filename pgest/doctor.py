"""What this installation can do, and what would make it do more."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pgest
from pgest.rewards import backend as rewards_backend
from pgest.rewards.backend import load_error

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `advice` says what to do about something that is missing."""

    name: str
    value: str
    advice: str = ""


def compiler() -> Finding:
    """The C++ compiler that a build from source would use."""
    command = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(command[0]) is None:
        advice = "a build from source needs a C++20 compiler: install g++ or clang++, or set CXX"
        return Finding("compiler", "none", advice)
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return Finding("compiler", (version.stdout.splitlines() or [command[0]])[0])


def engine(info: Mapping[str, Any]) -> Iterator[Finding]:
    """The active back end, from `pgest.build_info()`."""
    if info["backend"] == "native":
        yield Finding("back end", "native")
    else:
        advice = "for the compiled kernels, in the source tree: pip install --no-build-isolation ."
        reason = f" ({info['error']})" if info["error"] else ""
        yield Finding("back end", f"{info['backend']}{reason}", advice)
    if info["isa"]:
        yield Finding("instructions", str(info["isa"]))
    yield Finding("threads", str(info["threads"]))


def text(backend: str, error: str | None) -> Finding:
    """What scores text, from `pgest.rewards.backend()`."""
    if backend == "native":
        return Finding("rewards", "native")
    advice = "for the compiled metrics, in the source tree: pip install --no-build-isolation ."
    return Finding("rewards", f"{backend} ({error})", advice)


def cuda(built: bool, devices: int) -> Finding:
    """Whether the extension and torch can use a GPU."""
    value = f"{'built in' if built else 'not built in'}; torch sees {devices or 'no'} GPU"
    advice = "for CUDA kernels, with nvcc: PGEST_CUDA=1 pip install --no-build-isolation ."
    return Finding("CUDA", value, advice if devices and not built else "")


def huge_pages(setting: str) -> Finding:
    """Linux's transparent huge pages; `setting` reads like `always [madvise] never`."""
    chosen = re.search(r"\[(\w+)\]", setting)
    value = chosen.group(1) if chosen else setting.strip()
    advice = f"large gradients come faster after: echo madvise | sudo tee {HUGE_PAGES}"
    return Finding("huge pages", value, advice if value == "never" else "")


def extras() -> dict[str, list[str]]:
    """The distributions that each extra of pgest asks for, by the extra's name."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("pgest") or []:
        match = re.match(r"([\w.-]+).*extra == [\"'](\w+)", requirement)
        if match:
            found.setdefault(match.group(2), []).append(match.group(1))
    return found


def extra(name: str, distributions: list[str]) -> Finding:
    """Which distributions of an extra are installed."""
    present, missing = [], []
    for distribution in distributions:
        try:
            present.append(f"{distribution} {metadata.version(distribution)}")
        except metadata.PackageNotFoundError:
            missing.append(distribution)
    value = ", ".join([*present, *(f"no {distribution}" for distribution in missing)])
    return Finding(f"[{name}]", value, f"pip install 'pgest[{name}]'" if missing else "")


def findings() -> Iterator[Finding]:
    """The whole report, in the order in which it is printed."""
    info = pgest.build_info()
    yield Finding("pgest", pgest.__version__)
    yield Finding("python", platform.python_version())
    yield Finding("torch", torch.__version__)
    yield Finding("numpy", np.__version__)
    yield compiler()
    yield from engine(info)
    yield text(rewards_backend(), load_error)
    yield cuda(info["cuda"], torch.cuda.device_count())
    if HUGE_PAGES.exists():
        yield huge_pages(HUGE_PAGES.read_text(encoding="utf-8"))
    for name, distributions in extras().items():
        if name != "dev":  # a contributor's tools: `make env` installs them
            yield extra(name, distributions)


def render(lines: list[Finding]) -> str:
    """The findings as two aligned columns, advice below the line that it belongs to."""
    width = max(len(line.name) for line in lines) + 2
    text = []
    for line in lines:
        text.append(f"  {line.name:<{width}}{line.value}".rstrip())
        if line.advice:
            text.append(f"  {'':<{width}}-> {line.advice}")
    return "\n".join(text)


def trial() -> str:
    """What is wrong with a small computation on the active back end; empty when it is right."""
    logits = torch.tensor([[0.0, 1.0, -torch.inf], [2.0, 0.5, 1.0]])
    tokens = torch.tensor([1, 2])
    expected = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the report names the back end
            found = pgest.token_logp(logits, tokens)
    except Exception as error:  # whatever breaks is the finding
        return f"token_logp fails: {error!r}"
    return "" if torch.allclose(found, expected) else f"token_logp gives {found}, not {expected}"


def main() -> int:
    """Print the report; 0 when pgest computes what it should."""
    print(render(list(findings())))
    wrong = trial()
    print(f"\nNot usable: {wrong}" if wrong else f"\nReady, on the {pgest.backend()} back end.")
    return 1 if wrong else 0
