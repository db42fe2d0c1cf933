"""Registers and spills of every CUDA kernel, from a build log made with ptxas -v: ptxas.py LOG

Fails where a hot kernel spills: what goes through local memory no longer runs at memory speed.
Kernels for float64 are there for tests and gradients' checks, and may.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def demangled(names: list[str]) -> list[str]:
    """In words, where the tool is there."""
    try:
        done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True)
    except OSError:
        return names
    return done.stdout.split("\n")[: len(names)]


def read(log: str) -> list[tuple[str, str, int, int]]:
    """(kernel, architecture, registers, bytes spilled) of each entry."""
    found: list[tuple[str, str, int, int]] = []
    name = arch = ""
    spilled = 0
    for line in log.splitlines():
        if entry := ENTRY.search(line):
            name, arch, spilled = entry[1], entry[2], 0
        elif spill := SPILL.search(line):
            spilled = int(spill[1]) + int(spill[2])
        elif (used := REGISTERS.search(line)) and name:
            found.append((name, arch, int(used[1]), spilled))
            name = ""
    return found


def main(path: Path) -> int:
    entries = read(path.read_text())
    if not entries:
        print(f"no kernel in {path}: was it built with -Xptxas=-v?", file=sys.stderr)
        return 1
    kernels: dict[str, list[tuple[str, int, int]]] = {}
    for name, arch, registers, spilled in entries:
        kernels.setdefault(name, []).append((arch, registers, spilled))
    hot_spills = 0
    words = dict(zip(kernels, demangled(list(kernels)), strict=True))
    for name, builds in sorted(kernels.items(), key=lambda item: words[item[0]]):
        text = words[name].removeprefix("void ").replace("pgest::cuda::", "")
        text = re.sub(r"\(anonymous namespace\)::|\(.*$", "", text)
        hot = "<double" not in text
        each = " ".join(f"sm_{a}: {r}" + (f" ({s} B spilled)" if s else "") for a, r, s in builds)
        hot_spills += sum(1 for _, _, s in builds if s and hot)
        print(f"{text:<60} {each}")
    print(f"{len(kernels)} kernels; {hot_spills} builds of hot kernels spill")
    return 1 if hot_spills else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
