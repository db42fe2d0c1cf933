"""The task binary-vae: its bound is the definition's, all estimators train it, runs go on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu, linear

from benchmarks import binary_vae as table
from pgest.estimators import registry
from pgest.runs import Clock
from pgest.tasks import main, task_names
from pgest.tasks.binary_vae.config import PRESETS, BinaryVAEConfig
from pgest.tasks.binary_vae.estimators import NAMES, traits
from pgest.tasks.binary_vae.model import Autoencoder
from pgest.tasks.binary_vae.task import BinaryVAE

for package in ("tqdm", "tyro", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)
pytestmark = pytest.mark.usefixtures("one_thread")
SMOKE = PRESETS["smoke"]["elbo"]


def smoke(output: Path, *flags: str) -> Path:
    """Run the smoke preset and return its folder."""
    common = ["--preset", "smoke", "--threads", "1", "--no-tensorboard", "--output", str(output)]
    assert main("run", ["binary-vae", *common, *flags]) == 0
    (folder,) = output.iterdir()
    return folder


def test_models_are_what_they_would_be_alone() -> None:
    torch.manual_seed(0)
    vae = Autoencoder(3, pixels=6, hidden=5, code=4)
    x = torch.bernoulli(torch.full((3, 7, 6), 0.4))
    z = torch.bernoulli(torch.full((2, 3, 7, 4), 0.5))
    found = vae.log_likelihood(z, x)
    for i in range(3):
        h = z[:, i]
        for j, (weight, bias) in enumerate(
            zip(vae.decoder.weights, vae.decoder.biases, strict=True)
        ):
            h = linear(leaky_relu(h, 0.3) if j else h, weight[i].T, bias[i, 0])
        target = x[i].expand_as(h)
        expected = -binary_cross_entropy_with_logits(h, target, reduction="none").sum(-1)
        torch.testing.assert_close(found[:, i], expected)
        part = slice(i, i + 1)
        alone = vae.log_likelihood(z[:, part], x[part], part, frozen=True)
        torch.testing.assert_close(alone[:, 0], expected)
        assert alone.requires_grad is False


def task_of(**changes: Any) -> BinaryVAE:
    return BinaryVAE(replace(SMOKE, code=3, **changes))


@pytest.mark.parametrize("kl", ["sampled", "analytic"])
def test_the_bound_is_the_definition_s(kl: str) -> None:
    """Every code of three bits, weighted by q, against the loss of many draws."""
    task = task_of(kl=kl, num_samples=4000, batch_size=2, models=2)
    loss, figures = task.loss(torch.Generator().manual_seed(1), Clock())
    x = task.batch(torch.Generator().manual_seed(1))
    q = task.vae.posterior(x)
    total = torch.zeros(2, 2)
    for code in product((0.0, 1.0), repeat=3):
        z = torch.tensor(code).expand(1, 2, 2, 3)
        logq = q.log_prob(z)[0]
        bound = task.vae.log_likelihood(z, x)[0] - 3 * math.log(2) - logq
        total = total + logq.exp() * bound
    assert loss.item() == pytest.approx(-total.mean(1).sum().item(), abs=0.05)
    assert figures["cost"] == pytest.approx(loss.item() / 2)


def test_many_draws_bound_the_likelihood_more_closely() -> None:
    """And the bound of all that there is to draw is the likelihood itself."""
    task = task_of(models=2)
    one, many = (task.bounds(task.tested, draws) for draws in (1, 3000))
    assert one.shape == many.shape == (2, 16)
    assert torch.equal(one, task.bounds(task.tested, 1))
    x = torch.ones(2, 1, 64)
    likelihood = torch.stack(
        [
            task.vae.log_likelihood(torch.tensor(code).expand(1, 2, 1, 3), x)[0] - 3 * math.log(2)
            for code in product((0.0, 1.0), repeat=3)
        ]
    ).logsumexp(0)
    white = torch.full((1, 64), 255, dtype=torch.uint8)
    torch.testing.assert_close(task.bounds(white, 20_000), likelihood, rtol=0, atol=0.02)
    assert (many.mean() - one.mean()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_estimator_trains_both_sides(name: str) -> None:
    samples = max(2, traits(name).min_samples)
    task = task_of(estimator=name, num_samples=samples, models=2)
    loss, _ = task.loss(torch.Generator().manual_seed(0), Clock())
    loss.backward()
    for side in (task.vae.encoder, task.vae.decoder):
        for parameter in side.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert (parameter.grad.flatten(1).abs().amax(1) > 0).all()
    if task.own:
        assert len(task.estimators) == 2
        for estimator in task.estimators:
            assert (estimator.fit_loss is None) == (name == "moving_average")


def test_models_with_an_estimator_each_do_not_see_each_other() -> None:
    """The gradient of one model is the same whatever the other's weights are."""
    gradients = []
    for scale in (1.0, 5.0):
        task = task_of(estimator="nvil", models=2)
        with torch.no_grad():
            for parameter in task.vae.parameters():
                parameter[1] *= scale
        loss, _ = task.loss(torch.Generator().manual_seed(0), Clock())
        loss.backward()
        gradients.append([p.grad for p in task.vae.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])


def test_the_registry_s_estimators_stay_as_they_are() -> None:
    """`muprop` is a module that all of the process share."""
    task = task_of(estimator="muprop", models=2)
    shared = registry["muprop"]
    assert isinstance(shared, torch.nn.Module)
    task.model.eval()
    assert shared.training
    assert task.estimators == [shared]


def test_the_job_runs_and_says_what_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "binary-vae" in task_names()
    folder = smoke(tmp_path, "--models", "2", "--estimator", "disarm")
    record = json.loads((folder / "record.json").read_text())
    assert set(record["after"]["figures"]) == {"test ELBO", "test bound of 3 draws"}
    each = json.loads((folder / "models.json").read_text())["after"]["test ELBO"]
    assert sum(each) / 2 == pytest.approx(record["after"]["figures"]["test ELBO"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "by disarm (unbiased), 2 draws for each image" in printed
    assert "Means over 2 models" in printed
    assert main("run", ["binary-vae", "--resume", str(folder)]) == 1
    assert "is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator": "rlo"}, "estimator must be one of reinforce, rloo, .*, got rlo"),
        ({"num_samples": 1}, "num_samples must be at least 2 for rloo, got 1"),
        (
            {"estimator": "disarm", "num_samples": 3},
            "num_samples must be at least 2 and a multiple of 2 for disarm, got 3",
        ),
        ({"temperature": 0.5}, "temperature must be left out for rloo, which has none, got 0.5"),
        ({"estimator": "st_gumbel", "temperature": 0.0}, "temperature must be positive, got 0"),
        ({"models": 2, "clip_norm": 1.0}, "clip_norm must be inf with several models, .* got 1.0"),
        ({"code": 0}, "code must be at least 1, got 0"),
        ({"test_images": 1}, "test_images must be at least 2, got 1"),
    ],
)
def test_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(SMOKE, **changes)


def test_images_that_are_not_there_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "smoke", "--output", str(tmp_path), "--data", str(tmp_path / "none")]
    assert main("run", ["binary-vae", *flags]) == 1
    assert "folder must hold train-images-idx3-ubyte" in capsys.readouterr().err


@pytest.mark.slow
def test_it_learns_to_draw_digits() -> None:
    """A bound above that of the best code-free model, which knows each pixel's mean."""
    torch.manual_seed(0)
    task = BinaryVAE(BinaryVAEConfig(estimator="reinmax", code=50, hidden=100))
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    generator, clock = torch.Generator().manual_seed(0), Clock()
    for _ in range(600):
        loss, _ = task.loss(generator, clock)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    p = (task.train.double() / 255).mean(0).clamp(1e-3, 1 - 1e-3)
    pixels = task.held_out.double() / 255
    without = (pixels * p.log() + (1 - pixels) * (1 - p).log()).sum(1).mean().item()
    assert task.evaluate().figures["held-out ELBO"] > without + 1


@pytest.mark.slow
def test_the_comparison_runs_and_is_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", "digits", "--flags", "--preset smoke --models 2", "--timing", "0.5"]
    argv += ["--only", "rloo,rebar", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    assert table.main(argv) == 0
    page = (tmp_path / "binary-vae.md").read_text()
    assert "digits: two hidden layers of 16 leaky ReLUs" in page.replace("\n", " ")
    assert "| rloo | yes | 2 | 2 | -4" in page
    assert "| rebar | yes | 1 | 3 | -4" in page
    assert (tmp_path / "binary-vae.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("$ -m pgest run binary-vae") == 2
    assert table.main(argv) == 0
    assert "$ -m pgest" not in capsys.readouterr().out
