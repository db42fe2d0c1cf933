"""The pages of docs/ are true: their code runs and prints what they say."""

from __future__ import annotations

import re
from pathlib import Path

from pages import run

from pgest.estimators import Estimator, MovingAverage, registry

DOCS = Path(__file__).parent.parent / "docs"
ESTIMATORS = DOCS / "estimators.md"


def test_estimators_prints_what_it_says() -> None:
    blocks = list(run(ESTIMATORS))
    assert len(blocks) == 5
    for says, printed in blocks:
        assert says == printed


def test_a_false_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n")
    assert list(run(page)) == [("2\n", "1\n")]


def test_the_table_of_estimators_is_their_traits() -> None:
    found = {}
    for line in ESTIMATORS.read_text(encoding="utf-8").splitlines():
        if cells := re.match(r"\| `([\w()]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|", line):
            found[cells[1]] = cells.groups()[1:]
    estimators: dict[str, Estimator] = {**registry, "MovingAverage()": MovingAverage()}
    assert set(found) == set(estimators)
    for name, (right, evaluations, path, takes) in found.items():
        traits = estimators[name].traits
        assert right.startswith("always") == traits.unbiased
        assert traits.exact_for in right
        assert evaluations.startswith(traits.evaluations)
        assert ("≥" in evaluations) == (traits.min_samples > 1)
        assert (path == "yes") == traits.needs_path
        assert (takes == "all") == (len(traits.distributions) == 3)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", ESTIMATORS.read_text(encoding="utf-8"))
    assert len(links) >= 2
    assert [link for link in links if not (DOCS / link).exists()] == []
