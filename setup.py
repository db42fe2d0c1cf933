"""Builds the extension `pgest._C`; everything else is declared in pyproject.toml.

PGEST_BUILD=0, or no C++ compiler, installs without it: the ops then run on their definition in
plain PyTorch. PGEST_BUILD=1 makes a missing compiler an error.
"""

import os
import platform
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

SIMD = ["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# The oldest torch whose stable ABI the binary needs (2.11), and the limited API of Python 3.10.
MACROS = [("TORCH_TARGET_VERSION", "0x020b000000000000"), ("Py_LIMITED_API", "0x030A0000")]


def extension() -> Extension:
    root = Path("csrc")
    sources = sorted(str(p) for p in root.rglob("*.cpp"))
    headers = sorted(str(p) for p in root.rglob("*.h"))
    # Kernels in several instruction sets: with debug information the binary is five times as large.
    flags = ["-O3", "-std=c++20", "-fvisibility=hidden", "-g0"]
    if platform.system() != "Windows":
        flags += SIMD
    return CppExtension(
        "pgest._C",
        sources,
        depends=headers,
        define_macros=MACROS,
        extra_compile_args={"cxx": flags},
        py_limited_api=True,
    )


def wanted() -> bool:
    """PGEST_BUILD=1 or 0; else whether there is the compiler that torch would call."""
    choice = os.environ.get("PGEST_BUILD", "")
    compiler = os.environ.get("CXX", "c++").split()[0]
    if choice not in ("", "0", "1"):
        raise SystemExit(f"PGEST_BUILD must be 0 or 1, got {choice!r}")
    if choice == "" and shutil.which(compiler) is None:
        print(f"pgest: no C++ compiler ({compiler}), installing without kernels", file=sys.stderr)
        return False
    return choice != "0"


if wanted():
    setup(
        ext_modules=[extension()],
        cmdclass={"build_ext": BuildExtension},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )
else:
    setup()
