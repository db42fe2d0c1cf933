"""The pages of docs/ are true: their code runs and prints what they say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from pages import run

import pgest
from pgest.distributions import Distribution
from pgest.estimators import NVIL, Constant, Estimator, MovingAverage, Rebar, Relax, registry
from pgest.tasks.g2p.config import G2PConfig

DOCS = Path(__file__).parent.parent / "docs"
ESTIMATORS = DOCS / "estimators.md"
OBJECTIVES = DOCS / "objectives.md"
TUNING = DOCS / "tuning.md"
LINEAR = DOCS / "linear.md"
OPS = DOCS / "ops.md"
REWARDS = DOCS / "rewards.md"
COMPARE = DOCS / "compare.md"


def test_estimators_prints_what_it_says() -> None:
    blocks = list(run(ESTIMATORS))
    assert len(blocks) == 5
    for says, printed in blocks:
        assert says == printed


def test_compare_prints_what_it_says() -> None:
    blocks = list(run(COMPARE))
    assert len(blocks) == 3
    for says, printed in blocks:
        assert says == printed


def test_objectives_prints_what_it_says() -> None:
    blocks = list(run(OBJECTIVES))
    assert len(blocks) == 2
    for says, printed in blocks:
        assert says == printed


def test_rewards_prints_what_it_says() -> None:
    blocks = list(run(REWARDS))
    assert len(blocks) == 7
    for says, printed in blocks:
        assert says == printed


def test_ops_prints_what_it_says() -> None:
    blocks = list(run(OPS))
    assert len(blocks) == 2
    for says, printed in blocks:
        assert says == printed


def test_every_op_is_on_the_page() -> None:
    page = OPS.read_text(encoding="utf-8")
    shared = {"backend", "build_info", "Sample", "TokenStats", "BitStats"}
    drop_in = {"selective_log_softmax", "selective_log_softmax_and_entropy"}
    for name in set(pgest.ops.__all__) - shared - drop_in:
        assert f"`{name}`" in page, name


def test_every_objective_and_advantage_is_offered() -> None:
    page = OBJECTIVES.read_text(encoding="utf-8")
    for name in (*pgest.objectives.__all__, *pgest.advantages.__all__):
        assert re.search(rf"`{name}[`(]", page), name


@pytest.mark.usefixtures("one_thread")
def test_tuning_prints_what_it_says() -> None:
    for package in ("tqdm", "safetensors"):
        pytest.importorskip(package)
    ((says, printed),) = run(TUNING)
    assert says == printed


def test_linear_prints_what_it_says() -> None:
    ((says, printed),) = run(LINEAR)
    assert says == printed


def test_tuning_names_flags_that_exist() -> None:
    named = set(re.findall(r"`--([\w-]+)", TUNING.read_text(encoding="utf-8")))
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(G2PConfig)}
    assert named - fields == {"no-tensorboard"}


def test_a_false_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n")
    assert list(run(page)) == [("2\n", "1\n")]


def test_the_table_of_estimators_is_their_traits() -> None:
    found = {}
    for line in ESTIMATORS.read_text(encoding="utf-8").splitlines():
        if cells := re.match(r"\| `([\w()]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|", line):
            found[cells[1]] = cells.groups()[1:]
    estimators: dict[str, Estimator] = {
        **registry,
        "MovingAverage()": MovingAverage(),
        "Constant(value)": Constant(1.0),
        "NVIL(net)": NVIL(torch.nn.Identity()),
        "Rebar()": Rebar(),
        "Relax(net)": Relax(torch.nn.Identity()),
    }
    assert set(found) == set(estimators)
    for name, (right, evaluations, path, takes) in found.items():
        traits = estimators[name].traits
        assert right.startswith("always") == traits.unbiased
        assert traits.exact_for in right
        assert evaluations.startswith(traits.evaluations)
        assert ("≥" in evaluations) == (traits.min_samples > 1)
        assert (path == "yes") == traits.needs_path
        assert (takes == "all") == (traits.distributions == (Distribution,))


@pytest.mark.parametrize(
    "page",
    [ESTIMATORS, COMPARE, OBJECTIVES, TUNING, LINEAR, OPS, REWARDS],
    ids=lambda page: page.stem,
)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    assert len(links) >= 2
    assert [link for link in links if not (DOCS / link).exists()] == []
