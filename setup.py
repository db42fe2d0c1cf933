"""Builds the extensions `pgest._C` and `pgest._text`; all else is declared in pyproject.toml.

PGEST_BUILD=0, or no C++ compiler, installs without them: the ops then run on their definition in
plain PyTorch, and rewards on the Python libraries they equal. PGEST_BUILD=1 makes a missing
compiler an error. PGEST_CUDA=1 or 0 builds with or without CUDA kernels; left out, they are built
where torch and an nvcc are there for them.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils import cpp_extension
from torch.utils.cpp_extension import BuildExtension, CppExtension

SIMD = ["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# The oldest torch whose stable ABI the binary needs (2.11), and the limited API of Python 3.10.
MACROS = [("TORCH_TARGET_VERSION", "0x020b000000000000"), ("Py_LIMITED_API", "0x030A0000")]
# Ampere to Blackwell, all from Ampere's intermediate code: to make it for each takes long, and no
# kernel needs more. It also serves what comes after. Before 12.8 a toolkit knows no Blackwell.
ARCHITECTURES = "compute_80,sm_80,sm_90,sm_100,sm_120"
OLDER_ARCHITECTURES = "compute_80,sm_80,sm_90"
NVCC = ["-O3", "-std=c++20", "--expt-relaxed-constexpr"]


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit, torch's own choice first."""
    nvcc = shutil.which("nvcc")
    homes = [cpp_extension.CUDA_HOME, os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    homes += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    found = (Path(home) for home in homes if home and Path(home, "bin", "nvcc").is_file())
    return next(found, None)


def toolkit_version() -> tuple[int, ...]:
    """What nvcc says, such as (13, 0); () without one."""
    home = toolkit()
    if home is None:
        return ()
    command = [str(home / "bin" / "nvcc"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"release (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def cuda() -> str:
    """PGEST_CUDA, or what fits this torch: "1", "0", or "emulate", which the tests use."""
    choice = os.environ.get("PGEST_CUDA", "")
    if choice not in ("", "0", "1", "emulate"):
        raise SystemExit(f"PGEST_CUDA must be 0 or 1, got {choice!r}")
    if choice == "1" and toolkit() is None:
        raise SystemExit("PGEST_CUDA=1 needs nvcc: install the CUDA toolkit or set CUDA_HOME")
    if choice or not torch.version.cuda:
        return choice or "0"
    major = int(torch.version.cuda.partition(".")[0])
    if toolkit_version()[:1] != (major,):
        print(f"pgest: no nvcc of CUDA {major}, building without CUDA kernels", file=sys.stderr)
        return "0"
    return "1"


def pybind11_headers() -> str:
    """Those of the package where it is installed, else those that come with torch."""
    try:
        import pybind11
    except ImportError:
        return str(Path(torch.__file__).parent / "include")
    return pybind11.get_include()


def text() -> Extension:
    """The metrics of text: no torch; to the bit what Python computes, so no fused multiply-add."""
    root = Path("csrc/text")
    flags = ["-O3", "-std=c++20", "-fvisibility=hidden", "-g0", "-ffp-contract=off", "-pthread"]
    return Extension(
        "pgest._text",
        sorted(str(p) for p in root.glob("*.cpp")),
        depends=sorted(str(p) for p in root.glob("*.h")),
        include_dirs=[pybind11_headers()],
        language="c++",
        extra_compile_args={"cxx": flags},
    )


def extension() -> Extension:
    """One shared object for every device, against no CUDA library of torch's."""
    root, kind = Path("csrc"), cuda()
    sources = sorted(str(p) for p in root.rglob("*.cpp") if p.parent.name != "text")
    headers = sorted(str(p) for p in root.rglob("*.h") if p.parent.name != "text")
    # Kernels in several instruction sets: with debug information the binary is five times as large.
    flags = ["-O3", "-std=c++20", "-fvisibility=hidden", "-g0"]
    if platform.system() != "Windows":
        flags += SIMD
    nvcc, more = list(NVCC), dict[str, list[str]]()
    macros = list(MACROS)
    if kind == "1":
        home = toolkit()
        assert home is not None
        cpp_extension.CUDA_HOME = str(home)  # None on a torch without CUDA, nvcc or not
        if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
            known = ARCHITECTURES if toolkit_version() >= (12, 8) else OLDER_ARCHITECTURES
            nvcc.append(f"-gencode=arch=compute_80,code=[{known}]")
        sources += sorted(str(p) for p in root.rglob("*.cu"))
        macros.append(("PGEST_CUDA", "1"))
        more["libraries"] = ["cudart_static", "dl", "rt", "pthread"]
        more["library_dirs"] = [str(p) for p in (home / "lib64", home / "lib") if p.is_dir()]
    if kind == "emulate":
        ours = ("csrc/ops/", "csrc/module.cpp", "csrc/cpu/platform.cpp")
        sources = [s for s in sources if s.startswith(ours)]
        sources += sorted(str(p) for p in Path("tests/cuda").glob("*.cpp"))
        macros.append(("PGEST_EMULATE", "1"))
        folders = [str(Path(name).resolve()) for name in ("csrc/cuda", "tests/cuda")]
        flags += [*(f"-I{name}" for name in folders), "-Wno-unknown-pragmas", "-O1"]
    return CppExtension(
        "pgest._C",
        sources,
        depends=headers,
        define_macros=macros,
        extra_compile_args={"cxx": flags, "nvcc": nvcc},
        py_limited_api=True,
        **more,
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
        ext_modules=[extension(), *([] if cuda() == "emulate" else [text()])],
        cmdclass={"build_ext": BuildExtension},
    )
else:
    setup()
