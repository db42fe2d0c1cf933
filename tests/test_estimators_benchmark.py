"""The committed table of the benchmark is that of the code, and what the docs say of it holds."""

from __future__ import annotations

import pytest

from benchmarks import estimators as benchmark
from benchmarks.harness import RESULTS
from pgest.estimators import registry


def test_every_estimator_has_its_row_in_the_benchmark() -> None:
    found = dict(benchmark.figures())
    assert set(found) == {*registry, "MovingAverage"}
    biased = {name for name, rows in found.items() if any(r and r.bias > 1e-10 for r in rows)}
    declared = {name for name, estimator in registry.items() if estimator.traits.unbiased}
    assert set(found) - biased == {*declared, "MovingAverage"}
    page = (RESULTS / "estimators.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ")]
    committed = {
        name.strip(): [float(x) for x in cells if "–" not in x]
        for name, *cells in lines[1 : len(found) + 1]
    }
    for name, rows in found.items():
        figures = [100 * x for r in rows if r for x in (r.bias, r.spread)]
        assert committed[name] == pytest.approx(figures, abs=0.0501), name

    # What docs/estimators.md says of their spread beside that of rloo.
    spread = {name: [r.spread if r else 0.0 for r in rows] for name, rows in found.items()}
    one_bit, three_bits, one_of_three = range(3)
    for hard in ("straight_through", "st_gumbel"):
        for problem in (one_bit, one_of_three):
            assert spread[hard][problem] > 1.5 * spread["rloo"][problem]
        assert spread[hard][three_bits] < spread["rloo"][three_bits]
