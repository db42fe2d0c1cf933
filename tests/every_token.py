"""Exact expectations: every token of a small vocabulary, weighted by its probability."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import pgest
from pgest import TokenStats

VOCABULARY = 5


def logits(seed: int = 0) -> Tensor:
    """Three rows of a policy."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(3, VOCABULARY, generator=generator, dtype=torch.float64)
    return drawn.requires_grad_()


def stats(policy: Tensor) -> TokenStats:
    """Statistics of every token: logp is [V, rows]."""
    tokens = torch.arange(VOCABULARY)[:, None].expand(-1, len(policy))
    return pgest.token_stats(policy, tokens)


def logp(policy: Tensor) -> Tensor:
    """log p of every token, [V, rows], in plain PyTorch."""
    return policy.log_softmax(-1).T


def expectation(loss: Tensor, drawn_from: Tensor) -> Tensor:
    """E[loss] over tokens drawn from a policy that is held fixed, summed over rows."""
    return (drawn_from.detach().softmax(-1).T * loss).sum()


def gradient(value: Tensor, policy: Tensor) -> Tensor:
    """Of a scalar."""
    return torch.autograd.grad(value, policy, retain_graph=True)[0]


def expected_gradient(
    objective: Callable[..., Tensor], policy: Tensor, *rows: Tensor, drawn_from: Tensor
) -> Tensor:
    """What a per-token loss does to the policy, on average over the tokens drawn."""
    return gradient(expectation(objective(stats(policy), *rows), drawn_from), policy)


def assert_same(found: Tensor, expected: Tensor) -> None:
    """To 1e-10."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
