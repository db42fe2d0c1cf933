"""The command line: what it prints, what it hands on, how it exits."""

import subprocess
import sys
from importlib import metadata

import pytest
import torch

import pgest
from pgest import cli, doctor

NATIVE = {"backend": "native", "isa": "avx2", "threads": 2, "cuda": False, "error": None}
FALLBACK = {"backend": "reference", "isa": None, "threads": 2, "cuda": False, "error": "no _C"}


def test_version_as_a_module() -> None:
    command = [sys.executable, "-m", "pgest", "--version"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out == f"pgest {pgest.__version__}\n"


def test_the_installed_command_is_main() -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name="pgest")
    assert entry.load() is cli.main


@pytest.mark.parametrize("args", [[], ["dream"], ["doctor", "--dream"]])
def test_misuse_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(args)
    assert exit_.value.code == 2
    assert "usage: pgest" in capsys.readouterr().err


def test_tasks_get_everything_that_follows_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []

    def main(verb: str, args: list[str]) -> int:
        seen.append((verb, args))
        return 7

    monkeypatch.setattr("pgest.tasks.main", main)
    assert cli.main(["run", "g2p", "--help", "--", "-x"]) == 7
    assert cli.main(["predict"]) == 7
    assert seen == [("run", ["g2p", "--help", "--", "-x"]), ("predict", [])]


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(verb: str, args: list[str]) -> int:
        raise ModuleNotFoundError(f"No module named {args[0]!r}", name=args[0])

    monkeypatch.setattr("pgest.tasks.main", main)
    assert cli.main(["run", "g2p_en.data"]) == 1
    expected = "pgest run needs g2p_en.data: pip install 'pgest[tasks]'\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        cli.main(["run", "nowhere"])


@pytest.mark.parametrize(("words", "printed"), [("", ""), ("go on", "\npgest run: go on\n")])
def test_ctrl_c_ends_a_run_quietly(
    words: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(verb: str, args: list[str]) -> int:
        raise KeyboardInterrupt(words)

    monkeypatch.setattr("pgest.tasks.main", main)
    assert cli.main(["run", "g2p"]) == 130
    assert capsys.readouterr().err == printed


def test_doctor_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"pgest {pgest.__version__}" in " ".join(out.split())
    assert f"torch {torch.__version__}" in " ".join(out.split())
    assert "[tasks]" in out
    assert "[dev]" not in out
    assert out.endswith(f"\nReady, on the {pgest.backend()} back end.\n")


@pytest.mark.parametrize("broken", ["wrong", "raises"])
def test_doctor_fails_on_a_wrong_result(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def token_logp(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        if broken == "raises":
            raise OSError("illegal instruction")
        return torch.zeros(2)

    monkeypatch.setattr(pgest, "token_logp", token_logp)
    assert doctor.main() == 1
    assert "\nNot usable: token_logp " in capsys.readouterr().out


def test_columns_are_aligned_and_advice_follows_its_line() -> None:
    lines = [doctor.Finding("a", "1"), doctor.Finding("long", "2", "do")]
    assert doctor.render(lines) == "  a     1\n  long  2\n        -> do"


@pytest.mark.parametrize(
    ("finding", "value", "advice"),
    [
        (next(doctor.engine(NATIVE)), "native", ""),
        (next(doctor.engine(FALLBACK)), "reference (no _C)", "pip install --no-build-isolation"),
        (doctor.text("native", None), "native", ""),
        (doctor.text("libraries", "no _text"), "libraries (no _text)", "pip install --no-build"),
        (doctor.cuda(False, 0), "not built in; torch sees no GPU", ""),
        (doctor.cuda(True, 1), "built in; torch sees 1 GPU", ""),
        (doctor.cuda(False, 2), "not built in; torch sees 2 GPU", "PGEST_CUDA=1"),
        (doctor.huge_pages("always [madvise] never\n"), "madvise", ""),
        (doctor.huge_pages("always madvise [never]\n"), "never", "echo madvise"),
        (doctor.extra("x", ["torch"]), f"torch {metadata.version('torch')}", ""),
        (doctor.extra("x", ["no-such-one"]), "no no-such-one", "pip install 'pgest[x]'"),
    ],
)
def test_what_is_missing_comes_with_advice(
    finding: doctor.Finding, value: str, advice: str
) -> None:
    assert finding.value == value
    assert advice in finding.advice
    assert bool(advice) == bool(finding.advice)


def test_no_compiler_comes_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.compiler().value == "none"
    assert "C++20" in doctor.compiler().advice


def test_the_compiler_is_the_one_of_cxx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{sys.executable} -B")
    assert doctor.compiler().value.startswith("Python 3.")
