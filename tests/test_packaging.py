"""What is shipped: an sdist that builds, a wheel, an install with no compiler."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
from shipped import ROOT, install, python

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

USE = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import pgest
    from pgest import rewards
    logits, tokens = torch.randn(3, 5), torch.tensor([0, 4, 2])
    for _ in range(2):
        stats = pgest.token_stats(logits, tokens)
expected = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
torch.testing.assert_close(stats.logp, expected)
print(pgest.backend(), rewards.backend(), *(warning.category.__name__ for warning in caught))
"""


def use(site: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `USE` on what is installed in `site`; `-S` leaves out this environment's own pgest."""
    path = os.pathsep.join([str(site), str(Path(torch.__file__).parent.parent)])
    return python("-S", "-c", USE, cwd=site.parent, PYTHONPATH=path, **variables)


def test_the_sdist_has_all_that_a_build_needs(sdist: Path) -> None:
    sources = {path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    assert any(path.suffix == ".h" for path in sources)
    needed = {*sources, Path("LICENSE"), Path("README.md"), Path("pgest/py.typed")}
    assert [str(path) for path in needed if not (sdist / path).is_file()] == []


def test_the_wheel_is_for_this_python_and_holds_pgest_only(wheel: Path) -> None:
    """pybind11 has no limited API: a wheel that said abi3 would load on one Python alone."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{python}-{python}-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {name.partition("/")[0] for name in names} == {"pgest", info}
    sources = (path for path in (ROOT / "pgest").rglob("*") if path.is_file())
    shipped = [path for path in sources if path.suffix not in {".pyc", ".so"}]
    built = {"pgest/_C.abi3.so", f"pgest/_text{sysconfig.get_config_var('EXT_SUFFIX')}"}
    expected = {path.relative_to(ROOT).as_posix() for path in shipped} | built
    assert expected == {name for name in names if name.startswith("pgest/")}


def test_the_wheel_runs_natively(installed: Path) -> None:
    done = use(installed, PGEST_REQUIRE_KERNELS="1")
    assert done.stdout.split() == ["native", "native"], done.stderr


@pytest.mark.parametrize(
    "variables",
    [{"PGEST_BUILD": "0", "CXX": "false", "CC": "false"}, {"CXX": "no-such-compiler"}],
    ids=["switched off", "not found"],
)
def test_without_a_compiler_the_reference_runs_and_says_so_once(
    variables: dict[str, str], sdist: Path, tmp_path: Path
) -> None:
    install(sdist, tmp_path / "site", **variables)
    done = use(tmp_path / "site")
    assert done.stdout.split() == ["reference", "libraries", "RuntimeWarning"], done.stderr
    required = use(tmp_path / "site", PGEST_REQUIRE_KERNELS="1")
    assert required.returncode == 1
    assert "ImportError" in required.stderr
