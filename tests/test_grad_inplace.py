"""`grad_inplace=True`: the same gradient, in the logits' memory, on request only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pgest


def example(vocab: int = 6, **options: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 3, vocab, generator=generator, **options)
    return logits, torch.randint(vocab, (4, 3), generator=generator)


def both_ways(logits: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The gradient of a leaf below `logits`, fresh and in place."""
    grads = []
    for inplace in (False, True):
        leaf = logits.detach().clone().requires_grad_()
        tokens = torch.zeros(logits.shape[:-1], dtype=torch.long)
        stats = pgest.token_stats(leaf * 1, tokens, grad_inplace=inplace, **options)
        assert stats.logp is not None
        assert stats.entropy is not None
        (grad,) = torch.autograd.grad(stats.logp.sum() - 0.3 * stats.entropy.sum(), leaf)
        grads.append(grad)
    return grads[0], grads[1]


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_grad_inplace_gives_the_same_bits(dtype: torch.dtype) -> None:
    logits = example(vocab=3000)[0].to(dtype)
    mask = torch.tensor([[True, False, True]] * 4)
    fresh, reused = both_ways(logits, mask=mask, temperature=0.8)
    assert torch.equal(fresh, reused)


def test_grad_inplace_reuses_the_memory_of_the_logits() -> None:
    leaf, tokens = example(requires_grad=True)
    logits = leaf * 1
    pointer = logits.data_ptr()
    seen: list[int] = []
    logits.register_hook(lambda grad: seen.append(grad.data_ptr()))
    pgest.token_logp(logits, tokens, grad_inplace=True).sum().backward()
    assert seen == [pointer]


def test_grad_inplace_of_a_slice_stays_in_the_slice() -> None:
    leaf, tokens = example(requires_grad=True)
    logits = leaf * 1
    pgest.token_logp(logits[:, :-1], tokens[:, :-1], grad_inplace=True).sum().backward()
    assert torch.equal(logits[:, -1], leaf[:, -1])
    plain = leaf.detach().clone().requires_grad_()
    pgest.token_logp(plain[:, :-1], tokens[:, :-1]).sum().backward()
    assert leaf.grad is not None
    assert plain.grad is not None
    assert torch.equal(leaf.grad, plain.grad)


def test_logits_lost_to_their_gradient_cannot_be_used_again() -> None:
    leaf, tokens = example(requires_grad=True)
    logp = pgest.token_logp(leaf * 1, tokens, grad_inplace=True).sum()
    logp.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logp.backward()


def test_a_second_backward_is_refused_under_saved_tensor_hooks_too() -> None:
    leaf, tokens = example(requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        logp = pgest.token_logp(leaf * 1, tokens, grad_inplace=True).sum()
    logp.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward only"):
        logp.backward()


def test_logits_without_a_gradient_are_left_alone() -> None:
    logits, tokens = example()
    before, temperature = logits.clone(), torch.tensor(0.7, requires_grad=True)
    pgest.token_logp(logits, tokens, temperature=temperature, grad_inplace=True).sum().backward()
    assert torch.equal(logits, before)
    assert temperature.grad is not None


def test_grad_inplace_is_refused_where_it_would_be_wrong() -> None:
    leaf, tokens = example(requires_grad=True)
    with pytest.raises(ValueError, match="grad_inplace=True would overwrite"):
        pgest.token_logp(leaf, tokens, grad_inplace=True)
    with pytest.raises(ValueError, match="or a view of one"):
        pgest.token_logp(leaf[:, 1:], tokens[:, 1:], grad_inplace=True)
    logp = pgest.token_logp(leaf * 1, tokens, grad_inplace=True)
    with pytest.raises(ValueError, match=r"grad_inplace=True .* create_graph"):
        torch.autograd.grad(logp.sum(), leaf, create_graph=True)
    with pytest.raises(ValueError, match=r"grad_inplace=True .* torch\.func"):
        torch.func.grad(lambda z: pgest.token_logp(z * 1, tokens, grad_inplace=True).sum())(leaf)
    expanded = (leaf[:1] * 1).expand(4, 3, 6)
    with pytest.raises(ValueError, match=r"grad_inplace=True .* expanded"):
        pgest.token_logp(expanded, tokens, grad_inplace=True)
    overlapping = (leaf * 1).flatten().unfold(0, 6, 1)
    with pytest.raises(ValueError, match=r"grad_inplace=True .* overlapping"):
        pgest.token_logp(overlapping, torch.zeros(67, dtype=torch.long), grad_inplace=True)
    strided = (leaf * 1).movedim(-1, 0).contiguous().movedim(0, -1)
    with pytest.raises(ValueError, match=r"grad_inplace=True .* stride 1"):
        pgest.token_logp(strided, tokens, grad_inplace=True)
    with pytest.raises(Exception, match=r"grad_inplace=True .* torch\.compile"):
        torch.compile(
            lambda z: pgest.token_logp(z * 1, tokens, grad_inplace=True),
            fullgraph=True,
            backend="eager",
        )(leaf)


def test_grad_inplace_is_refused_where_an_argument_lies_in_the_logits() -> None:
    base = torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True)
    logits, tokens = base * 1, torch.zeros(4, 3, dtype=torch.long)
    inside = logits.detach()
    for name, x in {
        "bias": inside[0, 0],
        "temperature": inside[..., 0],
        "threshold": inside[..., 1],
    }.items():
        with pytest.raises(ValueError, match=f"would overwrite {name}, which shares its memory"):
            pgest.token_logp(logits, tokens, grad_inplace=True, **{name: x})  # type: ignore[arg-type]
