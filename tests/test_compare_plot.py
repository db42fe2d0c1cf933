"""The picture of a comparison says what the table says."""

from __future__ import annotations

from typing import Any

import pytest
from test_compare_command import figures

from pgest.comparison import Comparison, Figures
from pgest.comparison.plot import _costs, _estimates, color


def axes() -> Any:
    figure = pytest.importorskip("matplotlib.figure", reason="pip install 'pgest[estimators]'")
    return figure.Figure().subplots()


def biased(name: str, bias: float, error: float, spread: float = 0.5) -> Figures:
    return figures(name, bias, spread, bias_error=error, unbiased=False, enumerated=False)


def test_blue_is_what_the_table_trusts() -> None:
    quadratic = figures("reinmax", 0.0, 0.5, unbiased=False)  # exact here, by enumeration
    clamped = biased("straight_through", 0.0, 10.0)
    declared = figures("rloo", 0.1, 0.5, bias_error=0.2, unbiased=True, enumerated=False)
    wrong = figures("wrong", 0.5, 0.5, bias_error=0.01, unbiased=True, enumerated=False)
    colors = [color(row) for row in (quadratic, clamped, declared, wrong)]
    assert colors == ["tab:blue", "tab:orange", "tab:blue", "tab:orange"]


def test_what_is_not_known_is_not_never() -> None:
    rows = (figures("rloo", 0.0, 0.5), biased("vague", 0.0, 10.0), biased("off", 0.5, 0.1))
    for length, says in ((1.0, ["not known", "never"]), (0.0, ["-"] * 3), (None, ["-"] * 3)):
        found, drawn = Comparison(rows, {}, 0.1, length), axes()
        _costs(drawn, found)
        assert [text.get_text() for text in drawn.texts] == says


def test_an_outlier_does_not_flatten_the_others() -> None:
    rows = (*(figures(f"e{i}", 0.0, 0.5) for i in range(3)), figures("far", 0.0, 1000.0))
    drawn = axes()
    _estimates(drawn, Comparison(rows, {}, 0.1))
    low, high = drawn.get_xlim()
    assert high - low < 5
    assert [text.get_text() for text in drawn.texts] == ["1 ± 1e+03"]
    assert [line.get_marker() for line in drawn.lines if line.get_marker() in "<>"] == ["<", ">"]


def test_exact_rows_alone_can_be_drawn() -> None:
    drawn = axes()
    _estimates(drawn, Comparison((figures("exact", 0.0, 0.0),), {}, 0.1))
    assert drawn.get_xlim() == (0, 2)
