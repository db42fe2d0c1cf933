"""Every outcome of draws of whole values, of which an estimator uses one uniform or two each."""

from __future__ import annotations

from itertools import permutations, product
from math import factorial

import torch
from torch import Tensor

from pgest.distributions import Distribution
from pgest.estimators import Distinct, Estimator, SumAndSample

STEP = 0.25  # of the trapezoidal rule for a threshold, whose error is about exp(-pi^2 / STEP)
Outcomes = tuple[Tensor, Tensor]


def joint_outcomes(estimator: Estimator, q: Distribution, samples: int) -> Outcomes:
    """Noise [..., rows, *batch] and probability [rows] of all outcomes for a draw of `q`.

    Elements of the batch are independent: their outcomes are combined.
    """
    p = q.log_prob(q.enumerate_support()).exp().detach().double()
    parts = [of_one(estimator, column, samples) for column in p.reshape(len(p), -1).T]
    noise, probability = parts[0]
    for other, by in parts[1:]:
        again = other.repeat(*[1] * (other.dim() - 2), len(probability), 1)
        noise = torch.cat([noise.repeat_interleave(len(by), -2), again], -1)
        probability = (probability[:, None] * by).flatten()
    return noise.unflatten(-1, q.batch_shape) if q.batch_shape else noise[..., 0], probability


def of_one(estimator: Estimator, p: Tensor, samples: int) -> Outcomes:
    """Noise [..., rows, 1] and probability [rows] for the probabilities p [M] of all values."""
    if samples >= len(p):  # nothing is drawn
        shape = (estimator.samples,) if isinstance(estimator, SumAndSample) else (2, samples)
        if isinstance(estimator, Distinct):
            shape = (2, samples + estimator.more)
        return torch.full((*shape, 1, 1), 0.5, dtype=p.dtype), torch.ones(1, dtype=p.dtype)
    if isinstance(estimator, SumAndSample):
        return of_rest(p, samples - estimator.samples, estimator.samples)
    assert isinstance(estimator, Distinct)
    return thresholds(p, samples) if estimator.more else orders(p, samples)


def of_rest(p: Tensor, top: int, samples: int) -> Outcomes:
    """Samples of all but the most probable values."""
    rest = p.scatter(0, p.argsort(descending=True)[:top], 0.0)
    rest = rest / rest.sum()
    values = [v for v in range(len(p)) if rest[v] > 0]
    index = torch.tensor(list(product(values, repeat=samples))).T
    middle = rest.cumsum(0) - rest / 2
    return middle[index][..., None], rest[index].prod(0)


def orders(p: Tensor, draws: int) -> Outcomes:
    """Different values in every order."""
    index = torch.tensor(list(permutations([v for v in range(len(p)) if p[v] > 0], draws)))
    noise, probability = [], torch.ones(len(index), dtype=p.dtype)
    left = p.expand(len(index), -1)
    for token in index.T[..., None]:
        share = left / left.sum(-1, keepdim=True)
        noise.append((share.cumsum(-1) - share / 2).gather(-1, token)[:, 0])
        probability = probability * share.gather(-1, token)[:, 0]
        left = left.scatter(-1, token, 0.0)
    for_token = torch.stack(noise)
    return torch.stack([torch.zeros_like(for_token), for_token])[..., None], probability


def thresholds(p: Tensor, samples: int) -> Outcomes:
    """Different values in every order, and nodes for the perturbed value of the last of them.

    t = exp(-kappa) is a sum of exponentials whose rates are what is left before each draw. The rule
    is trapezoidal in log t; all of t comes from the last draw, whose noise can hold it.
    """
    noise, probability = orders(p, samples + 1)
    index = torch.tensor(list(permutations([v for v in range(len(p)) if p[v] > 0], samples + 1)))
    taken = p[index]
    rates = torch.cat([torch.ones(len(taken), 1, dtype=p.dtype), 1 - taken.cumsum(-1)[:, :-1]], -1)
    high = float((40 / rates[:, -1].min()).log())
    log_t = torch.arange(-30, high, STEP, dtype=p.dtype)
    t = log_t.exp()
    mass = density(rates, t) * t * STEP
    noise = noise.expand(*noise.shape[:-1], len(t)).clone()
    noise[0, -1] = -torch.expm1(-rates[:, -1:] * t)
    kept = noise[0, -1].flatten() < 1
    flat = noise.flatten(-2)[..., kept, None]
    return flat, (probability[:, None] * mass).flatten()[kept]


def density(rates: Tensor, t: Tensor) -> Tensor:
    """Of a sum of exponentials with different rates [rows, n], at t: [rows, nodes]."""
    n = rates.shape[-1]
    gaps = rates[:, None, :] - rates[:, :, None]
    gaps = torch.where(gaps == 0, 1.0, gaps)
    late = (torch.exp(-rates[..., None] * t) / gaps.prod(-1)[..., None]).sum(1)
    # Near 0 those terms cancel: the series in complete symmetric polynomials does not.
    early, polynomial = torch.zeros_like(late), torch.ones_like(rates)
    small = t.clamp_max(4.0)
    for m in range(50):
        if m:
            polynomial = _next(polynomial, rates)
        term = (-1) ** m * small ** (n - 1 + m) / float(factorial(n - 1 + m))
        early = early + polynomial[:, -1:] * term
    return rates.prod(-1, keepdim=True) * torch.where(t < 4, early, late)


def _next(polynomial: Tensor, rates: Tensor) -> Tensor:
    """From h_m to h_(m + 1) of the first k rates: h_(m + 1)(k) = h_(m + 1)(k - 1) + r_k h_m(k)."""
    return (rates * polynomial).cumsum(-1)
