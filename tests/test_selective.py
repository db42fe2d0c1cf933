"""The drop-in names give what their definition in plain PyTorch gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pgest


def example(k: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 5, 11, generator=generator)
    shape = (2, 5) if k is None else (2, 5, k)
    return logits, torch.randint(11, shape, generator=generator)


def definition(logits: Tensor, index: Tensor, temperature: float = 1.0) -> Tensor:
    log_p = (logits / temperature).log_softmax(-1)
    if index.dim() == logits.dim():
        return log_p.gather(-1, index)
    return log_p.gather(-1, index[..., None])[..., 0]


@pytest.mark.parametrize("k", [None, 1, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_selective_log_softmax(k: int | None, temperature: float) -> None:
    logits, index = example(k)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    out = pgest.selective_log_softmax(ours, index, temperature)
    expected = definition(theirs, index, temperature)
    torch.testing.assert_close(out, expected)
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    (weight * out).sum().backward()
    (weight * expected).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("k", [None, 4])
def test_row_mask_gives_zero(k: int | None) -> None:
    logits, index = example(k)
    mask = torch.rand(index.shape, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[0, 0] = False
    unread = logits.clone()
    unread[0, 0] = torch.nan
    expected = torch.where(mask, definition(logits, index), 0.0)
    for row_mask in (mask, mask.long()):
        out = pgest.selective_log_softmax(unread, index, row_mask=row_mask)
        torch.testing.assert_close(out, expected)


def test_masked_ids_may_be_anything() -> None:
    logits, index = example(4)
    mask = torch.ones(2, 5, 4, dtype=torch.bool)
    mask[1, 1, 2] = False
    expected = torch.where(mask, definition(logits, index), 0.0)
    out = pgest.selective_log_softmax(logits, torch.where(mask, index, -100), row_mask=mask)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("entropy_requires_grad", [True, False])
def test_with_entropy(entropy_requires_grad: bool) -> None:
    logits, index = example()
    logits.requires_grad_()
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 2] = False
    logp, entropy = pgest.selective_log_softmax_and_entropy(
        logits, index, entropy_requires_grad, temperature=0.8, row_mask=mask
    )
    log_p = (logits / 0.8).log_softmax(-1)
    plain = -(log_p.exp() * log_p).sum(-1)
    torch.testing.assert_close(entropy, torch.where(mask, plain, 0.0))
    torch.testing.assert_close(logp, torch.where(mask, definition(logits, index, 0.8), 0.0))
    assert entropy.requires_grad == entropy_requires_grad
    assert logp.requires_grad


def test_half_types_give_float32() -> None:
    logits, index = example()
    assert pgest.selective_log_softmax(logits.bfloat16(), index).dtype == torch.float32


def test_misuse_is_refused_by_name() -> None:
    logits, index = example()
    with pytest.raises(ValueError, match=r"index must have shape \(2, 5\) .* got \(5, 2\)"):
        pgest.selective_log_softmax(logits, index.T)
    with pytest.raises(ValueError, match=r"row_mask must have shape \(2, 5\) .* got \(2,\)"):
        pgest.selective_log_softmax(logits, index, row_mask=torch.ones(2))
    with pytest.raises(ValueError, match=r"index must have shape \(2, 5\) .* got \(2, 5, 3\)"):
        pgest.selective_log_softmax_and_entropy(logits, index[..., None].expand(2, 5, 3))
    with pytest.raises(ValueError, match="temperature must be positive"):
        pgest.selective_log_softmax(logits, index, temperature=0.0)
