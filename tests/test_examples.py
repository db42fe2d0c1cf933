"""The examples run as a reader runs them, learn what they say, and fit one screen."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# The least percentages, in the order in which they are printed.
LEARNED = {
    "llm_reinforce": [5, 80],
    "binary_net": [90, 90],
    "hard_attention": [95, 90, 95, 90],
}


def test_every_example_is_tried_and_short() -> None:
    lengths = {p.stem: len(p.read_text("utf-8").splitlines()) for p in EXAMPLES.glob("*.py")}
    assert set(lengths) == set(LEARNED)
    assert {name: n for name, n in lengths.items() if n > 60} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_it_learns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    percentages = [float(x) for x in re.findall(r"([\d.]+)%", capsys.readouterr().out)]
    assert len(percentages) == len(LEARNED[name])
    for found, least in zip(percentages, LEARNED[name], strict=True):
        assert found >= least
