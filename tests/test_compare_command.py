"""What a comparison says: its advice, its record and the command `pgest compare`."""

from __future__ import annotations

import json
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
    exact = figures("exact", 0.0, 0.0, evaluations=8)
    slope, blind = figures("slope", 0.0, 0.5, backwards=4), figures("blind", 0.0, 1.0)
    biased = figures("biased", 0.2, 0.1, backwards=4)
    cases = {
        (exact, slope, blind, biased): "Take `exact`: its 8 evaluations of f leave no error; where "
        "the support is too large, `slope` needs 100; without f's slope, `blind` needs 400.",
        (slope, blind): "Take `slope`: 100 evaluations of f for a gradient to 10 %; without f's "
        "slope, `blind` needs 400.",
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
    assert Comparison((vague,), {}, 0.2).needed(vague) == pytest.approx(4)


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
    assert cli.main(["compare", name, "--estimators", "exact,rloo", "--repeats", "20"]) == 0
    printed = capsys.readouterr().out
    assert "Take `" in printed
    assert ("exact does not apply" in printed) == (name == "many-bits")
