"""What holds for every estimator of the registry, whatever it does: layouts, batches, dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_expect import takes
from torch import Tensor

import pgest
from pgest.estimators import registry

KINDS = (pgest.Bernoulli, pgest.OneHotCategorical, pgest.Categorical)
CASES = [(kind, name) for kind in KINDS for name in registry if takes(name, kind)]
SAMPLES = 4


def cost(z: Tensor, kind: Any) -> Tensor:
    """Of three bits, or of two of three."""
    z = z.float() if z.dtype == torch.int64 else z
    flat = z.flatten(-2) if kind is pgest.OneHotCategorical else z
    c = torch.arange(1.0, flat.shape[-1] + 1, dtype=flat.dtype) / 4
    return ((flat * c).sum(-1) - 1) ** 2


def logits_of(kind: Any, *batch: int) -> Tensor:
    event = (3,) if kind is pgest.Bernoulli else (2, 3)
    return torch.randn(*batch, *event, generator=torch.Generator().manual_seed(0))


def run(kind: Any, name: str, logits: Tensor, noise: Tensor | None = None) -> list[Tensor]:
    """Value and gradient."""
    if not logits.requires_grad:
        logits.requires_grad_()
    q = kind(logits, event_dims=1)
    noise = noise_of(kind, name, logits) if noise is None else noise
    value = pgest.expect(lambda z: cost(z, kind), q, name, num_samples=SAMPLES, noise=noise)
    return [value.detach(), *torch.autograd.grad(value.sum(), logits)]


def noise_of(kind: Any, name: str, logits: Tensor) -> Tensor:
    shape = registry[name].noise_shape(kind(logits.detach(), event_dims=1), SAMPLES)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_strides_do_not_matter(kind: Any, name: str) -> None:
    logits = logits_of(kind, 5)
    turned = logits.transpose(0, -1).contiguous().transpose(0, -1)
    assert not turned.is_contiguous()
    noise = noise_of(kind, name, logits)
    twice = noise.repeat_interleave(2, -1)[..., ::2]
    torch.testing.assert_close(run(kind, name, turned, twice), run(kind, name, logits, noise))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_batch_may_have_no_dimension_or_no_element(kind: Any, name: str) -> None:
    logits = logits_of(kind)
    noise = noise_of(kind, name, logits)
    value, gradient = run(kind, name, logits, noise)
    assert value.shape == ()
    row = logits.detach()[None].clone()
    at = registry[name].noise_shape(kind(row, event_dims=1), SAMPLES)
    expected = run(kind, name, row, noise.reshape(at))
    torch.testing.assert_close([value, gradient], [x[0] for x in expected])
    value, gradient = run(kind, name, logits_of(kind, 0))
    assert value.shape == (0,)
    assert gradient.shape[0] == 0


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_elements_of_a_batch_do_not_see_each_other(kind: Any, name: str) -> None:
    """A broken or changed neighbour changes nothing."""
    logits = logits_of(kind, 3)
    noise = noise_of(kind, name, logits)
    expected = run(kind, name, logits, noise)
    other = logits.detach().clone()
    other[1] = 5 * other[1].flip(-1)
    for x, y in zip(run(kind, name, other, noise), expected, strict=True):
        assert torch.equal(x[[0, 2]], y[[0, 2]])
        assert not torch.equal(x[1], y[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_half_types_are_those_logits_in_float32(kind: Any, name: str, dtype: torch.dtype) -> None:
    logits = logits_of(kind, 50).to(dtype)
    noise = noise_of(kind, name, logits)
    value, gradient = run(kind, name, logits, noise)
    assert gradient.dtype == dtype
    wide, expected = run(kind, name, logits.detach().float(), noise)
    # f itself runs in the half type, and its slope with it; a relaxed sample is rounded on the way.
    scale = expected.abs().amax()
    close = (gradient.float() - expected).abs() < 0.03 * scale
    assert close.float().mean() > 0.95
    assert ((value - wide).abs() < 0.03 * wide.abs().amax()).float().mean() > 0.95


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_impossible_values_get_no_gradient(kind: Any, name: str) -> None:
    logits = logits_of(kind, 20)
    logits.view(20, -1)[:, 1] = -torch.inf
    value, gradient = run(kind, name, logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.view(20, -1)[:, 1].abs().max() == 0
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_value_is_the_same_without_gradients(kind: Any, name: str) -> None:
    logits = logits_of(kind, 5)
    noise, expected = noise_of(kind, name, logits), run(kind, name, logits)[0]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            q = kind(logits.detach(), event_dims=1)
            found = pgest.expect(lambda z: cost(z, kind), q, name, num_samples=SAMPLES, noise=noise)
        assert torch.equal(found, expected)
