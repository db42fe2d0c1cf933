"""What only `sample` promises: outputs, restrictions, masks, noise, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_token_stats import Recorder
from torch import Tensor

import pgest
from pgest import reference
from pgest.ops.sampling.noise import shape_of
from pgest.reference import METHODS

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
BATCH = (4, 3)


def example(vocab: int = 9, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(*BATCH, vocab, generator=generator, **options)


def noise(method: str, num_samples: int, batch: tuple[int, ...] = BATCH, seed: int = 0) -> Tensor:
    shape = shape_of(method, num_samples, torch.Size(batch))
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [1, 2, 9, 2049, 5003])
def test_equals_its_definition(method: str, dtype: torch.dtype, vocab: int) -> None:
    s = min(5, vocab) if method == "without_replacement" else 5
    logits, u = example(vocab).to(dtype), noise(method, s)
    temperature = torch.linspace(0.5, 2, 12, dtype=torch.float64).view(BATCH)
    mask = torch.tensor([[True, True, False]] * 4)
    bias = torch.linspace(-1, 1, vocab)
    options: dict[str, Any] = {"method": method, "noise": u, "outputs": ("logp", "entropy")}
    for softcap in (None, 4.0):
        drawn = pgest.sample(
            logits, s, temperature=temperature, mask=mask, bias=bias, softcap=softcap, **options
        )
        policy = (bias, softcap or 0.0, temperature, None, mask)
        tokens, perturbed = reference.sample(logits, *policy, u, method, s)
        assert torch.equal(drawn.tokens, tokens)
        given = reference.StatsInput(logits, tokens, *policy)
        stats = reference.token_stats(given)
        torch.testing.assert_close(drawn.logp, stats.logp, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(drawn.entropy, stats.entropy, rtol=1e-5, atol=1e-5)
        if perturbed is None:
            assert drawn.perturbed is None
        else:
            torch.testing.assert_close(drawn.perturbed, perturbed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_restrictions(method: str) -> None:
    logits, s = example(2100, requires_grad=True), 6
    options: dict[str, Any] = {"top_k": 9, "top_p": 0.95, "min_p": 0.01}
    drawn = pgest.sample(logits, s, method=method, noise=noise(method, s), **options)
    tau = pgest.row_threshold(logits, **options)
    assert drawn.threshold is not None
    assert drawn.logp is not None
    assert torch.equal(drawn.threshold, tau)
    kept = torch.where(logits >= tau[..., None], logits.detach(), -math.inf)
    plain = pgest.sample(kept, s, method=method, noise=noise(method, s))
    assert torch.equal(drawn.tokens, plain.tokens)
    again = pgest.token_stats(logits, drawn.tokens, outputs=("logp",), threshold=drawn.threshold)
    assert again.logp is not None
    torch.testing.assert_close(drawn.logp, again.logp, rtol=1e-6, atol=1e-6)
    gradients = (torch.autograd.grad(x.sum(), logits)[0] for x in (drawn.logp, again.logp))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_threshold_is_the_restriction_that_it_came_from(method: str, dtype: torch.dtype) -> None:
    logits, s = example(2100).to(dtype), 6
    limits: dict[str, Any] = {"top_k": 40, "top_p": 0.9}
    shape: dict[str, Any] = {"temperature": 0.7, "bias": torch.linspace(-1, 1, 2100), "softcap": 5}
    options: dict[str, Any] = {**shape, "method": method, "noise": noise(method, s)}
    options["outputs"] = ("logp", "entropy")
    expected = pgest.sample(logits, s, **limits, **options)
    tau = pgest.row_threshold(logits, **limits, **shape)
    drawn = pgest.sample(logits, s, threshold=tau, **options)
    for x, y in zip(drawn, expected, strict=True):
        assert x is y is None or torch.equal(x, y)  # type: ignore[arg-type]


def test_a_number_restricts_every_row() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, -3.0]])
    drawn = pgest.sample(logits, 50, threshold=1)
    assert set(drawn.tokens[:, 0].tolist()) == {1, 2}
    assert drawn.tokens[:, 1].eq(1).all()
    assert drawn.threshold is not None
    assert drawn.threshold.tolist() == [1.0, 1.0]
    assert pgest.sample(logits).threshold is None


def test_impossible_tokens_are_never_drawn() -> None:
    edges = [0.0, 2**-53, 1 - 2**-53, 0.5, 1 / 3, 2 / 3]
    u = torch.tensor(edges, dtype=torch.float64)
    for vocab in (4, 70, 2048, 2049, 6000):
        for dtype in DTYPES:
            logits = torch.zeros(vocab, dtype=dtype)
            logits[:: vocab - 1] = -math.inf
            logits[vocab // 2 :] = -math.inf
            tokens = pgest.sample(logits, len(edges), noise=u).tokens
            assert (logits[tokens] == 0).all()
            assert tokens[0] == 1
            assert tokens[2] == vocab // 2 - 1


def test_one_pass_and_no_second_forward() -> None:
    logits = example(500, requires_grad=True)
    with Recorder() as recorder:
        drawn = pgest.sample(logits, 4, outputs=("logp", "entropy"))
        assert drawn.logp is not None
        assert drawn.entropy is not None
        (-(drawn.logp.sum() + drawn.entropy.sum())).backward()
    names = [name for name in recorder.names if name.startswith("pgest")]
    assert names == ["pgest.sample.default", "pgest.token_stats_backward.default"]
    assert recorder.largest == logits.numel()
    assert not drawn.tokens.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_token_stats(method: str) -> None:
    logits = example(requires_grad=True)
    temperature = torch.tensor(0.7, requires_grad=True)
    bias = torch.linspace(-1, 1, 9).requires_grad_()
    leaves = (logits, temperature, bias)
    options: dict[str, Any] = {"temperature": temperature, "bias": bias, "softcap": 5.0}
    drawn = pgest.sample(
        logits, 3, method=method, outputs=("logp", "entropy"), noise=noise(method, 3), **options
    )
    stats = pgest.token_stats(logits, drawn.tokens, outputs=("logp", "entropy"), **options)
    weight = torch.linspace(-1, 2, 36).view(3, *BATCH)
    found, expected = (
        torch.autograd.grad((weight * x.logp).sum() + x.entropy.sin().sum(), leaves)  # type: ignore[operator,union-attr]
        for x in (drawn, stats)
    )
    torch.testing.assert_close(found, expected)
    if drawn.perturbed is not None:
        assert not drawn.perturbed.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_masked_rows_are_not_read(method: str) -> None:
    mask = torch.tensor([[True, False, True]] * 4)
    bad = torch.where(mask[..., None], example(), math.nan).requires_grad_()
    options: dict[str, Any] = {"method": method, "outputs": ("logp", "entropy"), "top_k": 4}
    drawn = pgest.sample(bad, 2, mask=mask, noise=noise(method, 2), **options)
    good = pgest.sample(example(), 2, noise=noise(method, 2), **options)
    for x, y in zip(drawn[:4], good[:4], strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert torch.equal(x, torch.where(mask, y, 0))
    assert drawn.logp is not None
    drawn.logp.sum().backward()
    assert bad.grad is not None
    assert bad.grad.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", [(), (0,), (2, 0), (1,)], ids=str)
def test_any_number_of_rows(method: str, batch: tuple[int, ...]) -> None:
    drawn = pgest.sample(torch.zeros(*batch, 5), 3, method=method, outputs=("logp", "entropy"))
    assert drawn.tokens.shape == (3, *batch)
    assert drawn.logp is not None
    assert drawn.entropy is not None
    assert drawn.logp.shape == (3, *batch)
    assert drawn.entropy.shape == batch


@pytest.mark.parametrize("method", METHODS)
def test_the_generator_decides_and_threads_do_not(method: str) -> None:
    logits, before = example(3000), torch.get_num_threads()
    drawn = []
    try:
        for threads, seed in ((1, 0), (2, 0), (3, 0), (1, 1)):
            torch.set_num_threads(threads)
            torch.manual_seed(threads)
            generator = torch.Generator().manual_seed(seed)
            drawn.append(pgest.sample(logits, 4, method=method, generator=generator))
    finally:
        torch.set_num_threads(before)
    for other in drawn[1:3]:
        for x, y in zip(drawn[0], other, strict=True):
            assert x is y is None or torch.equal(x, y)  # type: ignore[arg-type]
    assert not torch.equal(drawn[0].tokens, drawn[3].tokens)
    torch.manual_seed(0)
    first = pgest.sample(logits, 4, method=method).tokens
    torch.manual_seed(0)
    assert torch.equal(first, pgest.sample(logits, 4, method=method).tokens)


@pytest.mark.parametrize("method", METHODS)
def test_strides_reach_the_kernel(method: str) -> None:
    logits = example(2100)
    wide = torch.full((4, 5, 2110), math.nan)
    wide[:, 1:4, :2100] = logits
    views = (wide[:, 1:4, :2100], logits.movedim(-1, 0).contiguous().movedim(0, -1))
    expected = pgest.sample(logits, 3, method=method, noise=noise(method, 3))
    for view in views:
        drawn = pgest.sample(view, 3, method=method, noise=noise(method, 3))
        assert torch.equal(drawn.tokens, expected.tokens)


@pytest.mark.parametrize("method", METHODS)
def test_under_vmap_and_compile(method: str) -> None:
    logits, u = example(), noise(method, 3)
    at = 2 if method == "without_replacement" else 1

    def run(logits: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        drawn = pgest.sample(
            logits, 3, method=method, noise=u, top_k=5, outputs=("logp", "entropy")
        )
        return tuple(x for x in drawn if x is not None)

    expected = run(logits, u)
    found = torch.vmap(run, in_dims=(0, at), out_dims=(1, 1, 0, *([1, 0] if at == 2 else [0])))
    torch.testing.assert_close(found(logits, u), expected)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, u), expected)


def test_a_bias_for_each_element_of_vmap() -> None:
    logits, u, bias = example(), noise("independent", 2), torch.randn(4, 9)

    def run(logits: Tensor, u: Tensor, bias: Tensor) -> Tensor:
        return pgest.sample(logits, 2, noise=u, bias=bias).tokens

    found = torch.vmap(run, in_dims=(0, 1, 0), out_dims=1)(logits, u, bias)
    each = [run(logits[i], u[:, i], bias[i]) for i in range(4)]
    assert torch.equal(found, torch.stack(each, 1))


def test_a_threshold_for_each_element_of_vmap() -> None:
    logits, u, tau = example(), noise("independent", 2), torch.linspace(-1, 1, 12).view(BATCH)

    def run(logits: Tensor, u: Tensor, tau: Tensor) -> Tensor:
        return pgest.sample(logits, 2, noise=u, threshold=tau).tokens

    found = torch.vmap(run, in_dims=(0, 1, 0), out_dims=1)(logits, u, tau)
    assert torch.equal(found, run(logits, u, tau))
    tau = tau - 2
    shared = torch.vmap(run, in_dims=(None, None, 0))(logits, u, tau)
    each = [run(logits, u, t) for t in tau]
    assert torch.equal(shared, torch.stack(each))


def test_compiled_code_draws_from_the_default_generator() -> None:
    logits = torch.zeros(50, 1000)

    def run(logits: Tensor) -> Tensor:
        return pgest.sample(logits, 2).tokens

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    first, second = compiled(logits), compiled(logits)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_a_sample_is_what_an_objective_takes() -> None:
    logits = torch.zeros(3, 4, requires_grad=True)
    drawn = pgest.sample(logits, 2, outputs=("logp", "entropy"))
    assert drawn.stats == pgest.TokenStats(logp=drawn.logp, entropy=drawn.entropy)
