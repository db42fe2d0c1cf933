"""The straight-through estimator of second order whose weights vary least. Biased."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from pgest.distributions import Bernoulli, Relaxable
from pgest.distributions.base import finite
from pgest.distributions.paths import with_path
from pgest.estimators.base import Traits
from pgest.estimators.pathwise import HardPathwise
from pgest.estimators.straight_through import ReinMax


class MVE(HardPathwise):
    """MVE: of all Jacobians that are exact for quadratic f, the one that varies least.

        backward J(z) g = 1/2 [(z - p) <z, g> + (diag(p) - p p^T) y],   L y = v
        v_k = a_k g_k,  v_i = -sum_k a_k g_k,   a_k = p_k / (p_i + p_k) for k != i, z = e_i
        L the Laplacian of the graph with the weights p_i p_k / (p_i + p_k)

    E[J(z) f'(z)] is the gradient of E[f(z)] for all f = <b, z> + 1/2 <z, A z> if and only if p_i
    J_jk(i) is antisymmetric in i and k, up to a diagonal and sums that are given. `reinmax` takes
    one such J; this one has the least E |J(z)|^2, which is a flow of least energy in that graph, a
    linear system for each variable. Exact across independent variables too; biased otherwise. For
    bits both are the same, 1/2 |z - p| g.

    Less variance of the weights is not less variance for every f: compare it with `reinmax`.

    `noise` is what `straight_through` takes: [S, *batch_shape, *event_shape], without the axis V.

    Cost: a factorisation of V x V for each variable, O(V^3), and O(V^2) a sample, both in the
    backward; memory V^2 numbers a variable there. For small V. Twice differentiable, in compiled
    code once; forward mode raises for one-hot vectors.

    Source: Hooper and Shekhovtsov (2026), the minimum-variance estimator of second order; derived
    here from those two conditions.

    Example:
        >>> logits = torch.zeros(2, 4, requires_grad=True)
        >>> places = pgest.OneHotCategorical(logits)
        >>> cost = lambda z: (z * torch.tensor([1.0, 2.0, 3.0, 5.0])).sum(-1) ** 2
        >>> pgest.expect(cost, places, "mve", num_samples=8).sum().backward()
        >>> logits.grad.shape
        torch.Size([2, 4])
    """

    name: ClassVar[str] = "mve"
    traits: ClassVar[Traits] = replace(ReinMax.traits)

    def passed(self, distribution: Relaxable, sample: Tensor) -> Tensor:
        """Return the sample with the Jacobian of least variance."""
        if isinstance(distribution, Bernoulli):
            return distribution.reinmax(sample)
        logits = finite(distribution.logits)
        if torch.compiler.is_compiling():  # which differentiates once, and has no Functions
            return with_path(sample, path(logits, sample).to(sample.dtype))
        return _Passed.apply(logits, sample.detach())


class _Passed(torch.autograd.Function):
    """The sample; its backward is made of differentiable steps."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, sample: Tensor) -> Tensor:
        return sample.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, None]:
        logits, sample = ctx.saved_tensors
        g = upstream[0]
        return (None if g is None else jacobian_product(logits, sample, g)), None


def jacobian_product(logits: Tensor, sample: Tensor, g: Tensor) -> Tensor:
    """J(z) g of one-hot samples [..., *logits.shape], summed over their leading dimensions.

    The system is scaled by sqrt(p) on both sides: it is made of differences of logits, and the only
    probability that anything is divided by is that of the token which was drawn.
    """
    samples = math.prod(sample.shape[: sample.dim() - logits.dim()])
    shape = (samples, *logits.shape)
    z, g = sample.to(logits.dtype).reshape(shape), g.to(logits.dtype).reshape(shape)
    p = logits.softmax(-1)
    at_token = (z * logits).sum(-1, keepdim=True)
    links = geometric(logits - at_token)
    to_others = torch.where(z > 0, 0.0, (logits - at_token).sigmoid() * g).sum(-1, keepdim=True)
    source = torch.where(z > 0, -to_others, links * g) / (z * p).sum(-1, keepdim=True).sqrt()
    # The samples of a variable are the right-hand sides of one system.
    potential = torch.linalg.solve(laplacian(logits, p), source.movedim(0, -1)).movedim(-1, 0)
    slope = (z * g).sum(-1, keepdim=True)
    return 0.5 * ((z - p) * slope + p.sqrt() * potential).sum(0)


def path(logits: Tensor, sample: Tensor) -> Tensor:
    """J(z)^T logits, whose gradient is J(z) g; J is a constant to it. In the scaling of above."""
    z, known = sample.to(logits.dtype), logits.detach()
    p = known.softmax(-1)
    root, at_token = p.sqrt(), (z * logits).sum(-1, keepdim=True)
    apart = known - at_token.detach()
    above = (z * logits - p * logits).sum(-1, keepdim=True)
    centred = root * (logits - (p * logits).sum(-1, keepdim=True))
    potential = torch.linalg.solve(laplacian(known, p), centred.unsqueeze(-1)).squeeze(-1)
    at_node = (z * potential).sum(-1, keepdim=True)
    flow = geometric(apart) * potential - apart.sigmoid() * at_node
    flow = torch.where(z > 0, 0.0, flow) / (z * p).sum(-1, keepdim=True).sqrt()
    return 0.5 * (z * above + flow)


def laplacian(logits: Tensor, p: Tensor) -> Tensor:
    """L_ik / sqrt(p_i p_k), and a term for its null vector, of which no source has a part."""
    apart = logits.unsqueeze(-1) - logits.unsqueeze(-2)
    links, root = geometric(apart), p.sqrt()
    # A node's degree counts each p_i / (p_i + p_k) but its own, 1/2, which `links` holds as well.
    degrees = torch.diag_embed(apart.sigmoid().sum(-2))
    return degrees - links + root.unsqueeze(-1) * root.unsqueeze(-2)


def geometric(apart: Tensor) -> Tensor:
    """sqrt(p_i p_k) / (p_i + p_k), from the difference of two logits, which may be infinite."""
    far = (-apart.abs() / 2).exp()
    return far / (1 + far.square())
