"""What a comparison says: its advice, its record and the command `pgest compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pgest import cli
from pgest.comparison import Comparison, Figures, problems


def figures(name: str, bias: float, spread: float, **more: Any) -> Figures:
    row: dict[str, Any] = {
        "unbiased": bias == 0,
        "enumerated": True,
        "bias_error": 0.0,
        "spread_error": 0.0,
        "along": (1.0, spread),
        "evaluations": 4,
        "backwards": 0,
        "seconds": 1e-3,
        **more,
    }
    return Figures(name=name, bias=bias, spread=spread, **row)


def test_the_advice_is_one_sentence() -> None:
    exact = figures("exact", 0.0, 0.0, evaluations=8, lists=True)
    slope, blind = figures("slope", 0.0, 0.5, backwards=4), figures("blind", 0.0, 1.0)
    listing = figures("listing", 0.0, 0.2, lists=True)
    whole = figures("whole", 0.0, 0.0, evaluations=12)  # it sees every value of one token
    biased = figures("biased", 0.2, 0.1, backwards=4)
    sparse = figures("sparse", 0.05, 0.0, evaluations=3, unbiased=False)
    cases = {
        (exact, listing, slope, blind, biased): "Take `exact`: its 8 evaluations of f leave no "
        "error; where the support is too large, `slope` needs 100; without f's slope, `blind` "
        "needs 400.",
        (listing, blind): "Take `listing`: 16 evaluations of f for a gradient to 10 %; where the "
        "support is too large, `blind` needs 400.",
        (exact, whole, blind): "Take `exact`: its 8 evaluations of f leave no error; where the "
        "support is too large, `blind` needs 400.",
        (exact, listing): "Take `exact`: its 8 evaluations of f leave no error.",
        (slope, listing, blind): "Take `slope`: 100 evaluations of f for a gradient to 10 %; "
        "without f's slope, `listing` needs 16.",
        (slope, sparse): "Take `slope`: 100 evaluations of f for a gradient to 10 %; without f's "
        "slope, `sparse` needs 3.",
        (blind, biased): "Take `blind`: 400 evaluations of f for a gradient to 10 %.",
        (biased,): "None is known to reach a gradient to 10 %: all that apply are biased by more, "
        "or may be; `biased` is the least biased, by 20.0 %.",
    }
    for rows, advice in cases.items():
        assert Comparison(rows, {}, 0.1).advice() == advice
    assert Comparison((biased,), {}, 0.1).record()["figures"][0]["needed"] is None
    assert "never" in str(Comparison((biased,), {}, 0.1))
    vague = figures("vague", 0.08, 0.1, bias_error=0.05, unbiased=False, enumerated=False)
    assert "not known" in str(Comparison((vague,), {}, 0.1))
    assert Comparison((vague,), {}, 0.2).needed(vague) == 4


def test_evaluations_are_those_of_whole_calls() -> None:
    row = figures("three calls", 0.0, 0.15)  # of variance 2.25 times what is wanted
    assert Comparison((row,), {}, 0.1).needed(row) == 12


def test_without_a_length_nothing_is_relative() -> None:
    row = figures("mine", 0.25, 2.0, bias_error=0.5, enumerated=False)
    for length, says in ((0.0, "gradient is 0"), (None, "not resolved")):
        found = Comparison((row,), {}, 0.1, length)
        assert says in found.advice()
        assert "%" not in found.table().replace("f for 10 %", "")
        assert "0.25 ± 0.5" in found.table()
        record = found.record()
        assert record["length"] == length
        assert record["figures"][0]["needed"] is None


PROBLEM = """
import torch, pgest
distribution = pgest.OneHotCategorical(torch.tensor([0.5, -1.0, 0.2]))
f = lambda z: (z @ torch.tensor([1.0, 2.0, -1.0])) ** 2
estimators = {"cold": pgest.estimators.STGumbel(0.3)}
"""


def test_the_command_compares_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'pgest[estimators]'")
    path, out = tmp_path / "problem.py", tmp_path / "out"
    path.write_text(PROBLEM)
    args = ["--estimators", "rloo,reinmax", "--repeats", "20", "--out", str(out)]
    assert cli.main(["compare", str(path), *args]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("problem.py\n\n| estimator ")
    record = json.loads((out / "compare.json").read_text())
    assert {r["name"] for r in record["figures"]} == {"rloo", "reinmax", "cold"}
    assert record["advice"] in printed
    assert record["problem"] == "problem.py"
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_refuses_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "problem.py"
    path.write_text("f = abs\n")
    for problem, message in (
        ("two-bits", "problem must be a Python file or one of one-bit, three-bits, one-of-three"),
        (str(path), f"{path} must define distribution, as pgest.expect takes it"),
    ):
        assert cli.main(["compare", problem]) == 2
        assert capsys.readouterr().err.startswith(f"pgest compare: {message}")


@pytest.mark.parametrize("name", problems)
def test_built_in_problems_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", name, "--estimators", "exact, rloo", "--repeats", "100"]) == 0
    printed = capsys.readouterr().out
    assert "Take `" in printed
    assert ("exact does not apply" in printed) == (name == "many-bits")


def refusal(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["compare", *args]) == 2
    return capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'pgest[estimators]'")
    path, out = tmp_path / "problem.py", tmp_path / "a file"
    path.write_text("raise AssertionError('it ran')")
    out.write_text("")
    said = refusal([str(path), "--out", str(out / "folder")], capsys)
    assert said.startswith(f"pgest compare: --out must be a folder to write to, got {out}")


def test_a_file_may_import_its_neighbours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, before = tmp_path / "problem.py", list(sys.path)
    (tmp_path / "neighbour_of_problem.py").write_text("def f(z): return z.sum(-1) ** 2")
    (tmp_path / "late_neighbour.py").write_text("two = 2")
    path.write_text(
        PROBLEM + "import neighbour_of_problem\n"
        "def f(z):\n    import late_neighbour\n    return neighbour_of_problem.f(z)\n"
    )
    assert cli.main(["compare", str(path), "--estimators", "reinforce", "--repeats", "20"]) == 0
    assert "| reinforce " in capsys.readouterr().out
    assert sys.path == before


def test_what_goes_wrong_in_a_file_is_said_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "problem.py"
    for last, says in (
        ("distribution = pgest.Bernoulli(torch.zeros(3, device='no such'))", "RuntimeError"),
        ("f = lambda z: {}['key']", "KeyError: 'key'"),
        ("x = (", "'(' was never closed"),
    ):
        path.write_text(PROBLEM + last)
        said = refusal([str(path), "--estimators", "rloo"], capsys)
        assert said.startswith(f"pgest compare: {path}, line 6: ")
        assert says in said


def test_a_file_may_list_its_estimators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "problem.py"
    path.write_text(PROBLEM + "estimators = ['rloo', pgest.estimators.Constant(1.0)]")
    few = ["--repeats", "20", "--estimators"]
    assert cli.main(["compare", str(path), *few, ""]) == 0
    printed = capsys.readouterr().out
    assert [name in printed for name in ("rloo", "Constant", "reinforce")] == [True, True, False]
    assert cli.main(["compare", str(path), *few, " reinforce , rloo"]) == 0
    assert capsys.readouterr().out.count("| rloo ") == 1
    path.write_text(PROBLEM + "estimators = [pgest.estimators.STGumbel(2.0)]")
    assert "two that are called 'st_gumbel'" in refusal([str(path)], capsys)
    assert "estimators must have at least one" in refusal(["one-bit", "--estimators", ""], capsys)
