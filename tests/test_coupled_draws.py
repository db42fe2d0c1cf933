"""What coupled samples are when they are drawn, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from enumeration import assert_unbiased, exact_gradient, weigh
from test_coupled import COUPLED
from test_estimators import LOGITS, interacting
from test_trace import A, C, W, early, exact, late, second
from torch import Tensor

import pgest
from benchmarks.noise import noise_for
from pgest.comparison.outcomes import Kind
from pgest.estimators import ARSM, CoupledBits, DisARM, Stratified, registry


def test_every_stratum_is_drawn_from_once() -> None:
    logits = torch.zeros(1000, 3)
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z)
        return z.float()

    pgest.expect(f, pgest.Categorical(logits), "stratified", num_samples=3)
    assert (seen[0].sort(0).values == torch.arange(3)[:, None]).all()
    assert (seen[0][0].bincount(minlength=3) > 250).all()  # any sample may have any part


@pytest.mark.parametrize(("name", "samples"), [*COUPLED, ("arms", 5), ("disarm", 6)])
@pytest.mark.parametrize("kind", LOGITS)
def test_what_is_drawn_has_the_enumerated_law(kind: Kind, name: str, samples: int) -> None:
    """Fresh noise: |z| < 4.5 for each coordinate: 20,000 estimates see 3 % of their spread."""
    n = 20_000
    leaf = LOGITS[kind].expand(n, *LOGITS[kind].shape).clone().requires_grad_()
    q, g = kind(leaf, event_dims=1), torch.Generator().manual_seed(0)
    value = pgest.expect(interacting, q, name, num_samples=samples, generator=g)
    estimates = torch.autograd.grad(value.sum(), leaf)[0].flatten(1)
    truth = exact_gradient(kind, LOGITS[kind], interacting)[1].flatten()
    z = (estimates.mean(0) - truth) / (estimates.std(0) / n**0.5)
    assert z.abs().max() < 4.5


def swapped(logits: Tensor, **options: Any) -> Tensor:
    """What ARSM evaluates of a token for rows of logits [n, 3], as one number [n] of its swaps."""
    seen: list[Tensor] = []

    def f(z: Tensor) -> Tensor:
        seen.append((z * 3 ** torch.arange(4)[:, None]).sum(0))
        return z.float()

    pgest.expect(f, pgest.Categorical(logits), "arsm", **options)
    return seen[0]


def test_swapped_tokens_have_the_enumerated_joint_law() -> None:
    """A chi-square test, |z| < 4.5, of the token and what it is after each of three swaps.

    With 50,000 draws it sees that a stick is not broken evenly where the uniforms are raised to the
    power of 1.05: probabilities that are off by 1 percent.
    """
    logits, n = LOGITS[pgest.Categorical][0], 50_000
    noise, p = noise_for(ARSM(), pgest.Categorical, logits[None], 1)
    listed = swapped(logits.expand(len(p), 3), noise=noise[..., 0, :])
    law = torch.zeros(81, dtype=p.dtype).index_add(0, listed, p)
    possible = law > 0
    assert law.sum() == pytest.approx(1)
    g = torch.Generator().manual_seed(0)
    uneven = torch.rand(1, n, 3, generator=g, dtype=torch.float64) ** 1.05
    z = []
    for options in ({"generator": g}, {"noise": uneven}):
        found = swapped(logits.expand(n, 3), **options).bincount(minlength=81)
        assert found[~possible].sum() == 0
        expected = n * law[possible]
        chi_square = ((found[possible] - expected) ** 2 / expected).sum()
        free = len(expected) - 1
        z.append(float((chi_square - free) / (2 * free) ** 0.5))
    assert z[0] < 4.5 < z[1]


@pytest.mark.parametrize("name", ["arm", "disarm", "arms", "antithetic", "stratified"])
@pytest.mark.parametrize("kind", LOGITS)
def test_what_is_impossible_is_never_drawn_nor_moved(kind: Kind, name: str) -> None:
    inf = torch.inf
    logits = torch.tensor([[-inf, 0.5, -0.3, -inf], [1.0, -inf, -inf, -inf]]).repeat(50, 1)
    if kind is pgest.Bernoulli:
        logits[1::2, 0] = inf
    leaf = logits.requires_grad_()

    def f(z: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(z, 4).float() if kind is pgest.Categorical else z
        assert not (one_hot[..., logits.isneginf()] > 0).any()
        return (one_hot * torch.arange(4.0)).sum(-1) ** 2

    q = kind(leaf, event_dims=1) if kind is pgest.Bernoulli else kind(leaf)
    value = pgest.expect(f, q, name, num_samples=4)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    assert value.isfinite().all()
    assert (found[logits.isinf()] == 0).all()
    assert (found[::2, 1:3] != 0).any()


@pytest.mark.parametrize("name", ["arm", "disarm", "arms", "antithetic", "stratified"])
def test_a_broken_row_is_refused_or_shows(name: str) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [-torch.inf] * 3, [0.0, torch.nan, 1.0]])
    for row in logits[1:]:
        with pytest.raises(ValueError, match="logits must have a possible token in each row"):
            pgest.expect(lambda z: z.float(), pgest.Categorical(row), name, num_samples=4)
    with pytest.raises(ValueError, match="logits must not be NaN"):
        pgest.expect(lambda z: z, pgest.Bernoulli(logits[2]), name, num_samples=4)
    shape = registry[name].noise_shape(pgest.Categorical(logits[0]), 4)
    noise = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))

    def run(x: Tensor, u: Tensor) -> Tensor:
        q = pgest.Categorical(x)
        return pgest.expect(lambda z: z.float(), q, name, num_samples=4, noise=u)

    found = torch.func.vmap(run)(logits, noise)
    assert found.isnan().tolist() == [False, True, True]


def test_numbers_of_samples_are_refused_by_name() -> None:
    q = pgest.Bernoulli(torch.zeros(3))
    for name, samples, message in (
        ("arm", 3, "must be a multiple of 2 for arm, got 3"),
        ("disarm", 5, "must be a multiple of 2 for disarm, got 5"),
        ("disarm", 1, "must be at least 2 for disarm, got 1"),
        ("arms", 1, "must be at least 2 for arms, got 1"),
        ("antithetic", 2, "must be at least 4 for antithetic, got 2"),
        ("stratified", 1, "must be at least 2 for stratified, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            pgest.expect(lambda z: z, q, name, num_samples=samples)
    with pytest.raises(ValueError, match=r"^estimator 'u2g' is called 'disarm' here$"):
        pgest.expect(lambda z: z, q, "u2g")


def test_pieces_and_parts() -> None:
    assert isinstance(registry["arms"], CoupledBits)
    assert Stratified().noise_shape(pgest.Bernoulli(torch.zeros(5, 3)), 4) == (4, 5, 3)
    assert DisARM().noise_shape(pgest.Categorical(torch.zeros(5, 3)), 4) == (2, 5, 2)


def layer(coupled: bool, p: Tensor, outcome: Tensor) -> tuple[Tensor, Tensor]:
    """Noise of an outcome for bits of probability p [4, rows, 2], and its probability [rows].

    A pair has three regions, between the uniforms at which its bits change; a bit alone has two.
    """
    if coupled:
        change = torch.stack([p[:2], 1 - p[2:]]).sort(0).values
        edges = torch.stack([torch.zeros_like(p[:2]), *change, torch.ones_like(p[:2])])
    else:
        edges = torch.stack([torch.zeros_like(p), p, torch.ones_like(p)])
    outcome = outcome.view(len(outcome), -1, 2).movedim(1, 0)
    low, high = (edges.gather(0, x[None])[0] for x in (outcome, outcome + 1))
    return (low + high) / 2, (high - low).prod(0).prod(-1)


@pytest.mark.parametrize(
    "names", [("antithetic", "antithetic"), ("antithetic", "rloo"), ("rloo", "antithetic")]
)
def test_antithetic_draws_of_two_layers_are_unbiased(names: tuple[str, str]) -> None:
    coupled = [name == "antithetic" for name in names]
    regions = [product(range(3), repeat=4) if c else product(range(2), repeat=8) for c in coupled]
    of_first, of_second = (torch.tensor(list(x)) for x in regions)
    first = of_first.repeat_interleave(len(of_second), 0)
    then = of_second.repeat(len(of_first), 1)
    rows = len(first)
    a0, w, c = (x.expand(rows, *x.shape).clone().requires_grad_() for x in (A, W, C))
    params = (a0, w, c)
    trace = pgest.Trace(4)
    a = trace.expand(params[0])
    noise, p1 = layer(coupled[0], a.detach().sigmoid(), first)
    b1 = trace.draw(pgest.Bernoulli(a, event_dims=1), names[0], noise=noise)
    trace.cost(early(b1))
    logits = second(b1, params)
    noise, p2 = layer(coupled[1], logits.detach().sigmoid(), then)
    b2 = trace.draw(pgest.Bernoulli(logits, event_dims=1), names[1], noise=noise)
    trace.cost(late(b1, b2))
    value = trace.value()
    expected, gradients = exact()
    found = torch.autograd.grad(value.sum(), params)
    for estimates, truth in zip(found, gradients, strict=True):
        assert_unbiased(weigh(p1 * p2, estimates, value.detach()), expected, truth)
