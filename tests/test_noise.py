"""Draws can be repeated: `generator=`, and `noise=` under torch.compile and torch.func."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from test_expect import ON_BITS, bits, takes, uniforms
from torch import Tensor

import pgest
from pgest.estimators import GumbelSoftmax, MovingAverage, STGumbel, registry


@pytest.mark.parametrize("name", ON_BITS)
def test_the_generator_reproduces(name: str) -> None:
    def estimate(seed: int) -> Sequence[Tensor]:
        distribution = bits(50, 3, event_dims=1)
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {"num_samples": 4, "generator": generator}
        value = pgest.expect(lambda z: z.sum(-1) ** 2, distribution, name, **options)
        return (value.detach(), *torch.autograd.grad(value.sum(), distribution.logits))

    torch.manual_seed(1)
    first = estimate(0)
    torch.manual_seed(2)
    assert all(map(torch.equal, estimate(0), first))
    without_noise = "support" in registry[name].traits.evaluations
    assert torch.equal(estimate(1)[0], first[0]) == without_noise


CASES = [
    (kind, name)
    for kind in (pgest.Bernoulli, pgest.OneHotCategorical, pgest.Categorical)
    for name in registry
    if takes(name, kind)
]


def case(kind: Any, name: str, batch: int = 4) -> tuple[Any, Tensor, Tensor]:
    """A function of logits and noise for one element, with a batch of both."""
    element = kind(torch.zeros(2, 5), event_dims=2 if kind is pgest.Bernoulli else 1)
    noise = uniforms(batch, *registry[name].noise_shape(element, 4))

    def run(logits: Tensor, noise: Tensor) -> Tensor:
        def f(z: Tensor) -> Tensor:
            return (0.5 + z.to(logits.dtype)).flatten(1).sin().sum(-1)

        q = kind(logits, event_dims=logits.dim() - (kind is not pgest.Bernoulli))
        return pgest.expect(f, q, name, num_samples=4, noise=noise)

    logits = torch.randn(batch, 2, 5, generator=torch.Generator().manual_seed(0))
    return run, logits, noise


def gradients(run: Any, logits: Tensor, noise: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in logits]
    values = [run(x, u) for x, u in zip(leaves, noise, strict=True)]
    return [torch.stack(values).detach(), torch.stack(torch.autograd.grad(sum(values), leaves))]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_noise_under_vmap_and_grad(kind: Any, name: str) -> None:
    run, logits, noise = case(kind, name)
    found = torch.func.vmap(torch.func.grad_and_value(run))(logits, noise)
    torch.testing.assert_close([found[1], found[0]], gradients(run, logits, noise))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_noise_under_compile(kind: Any, name: str) -> None:
    run, logits, noise = case(kind, name, batch=1)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled, logits, noise), gradients(run, logits, noise))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.searchsorted")  # Inductor leaves contiguous() out
@pytest.mark.parametrize(
    "name",
    ["rloo", "disarm", "double_cv", "sum_and_sample", "gumbel_softmax", "spsa"],
)
def test_noise_under_inductor(name: str) -> None:
    """One of each family: the code that the compiler makes, not only the graph."""
    run, logits, noise = case(pgest.OneHotCategorical, name, batch=1)
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="inductor")
    torch.testing.assert_close(gradients(compiled, logits, noise), gradients(run, logits, noise))


def test_a_moving_average_under_compile() -> None:
    logits, noise = torch.randn(3, requires_grad=True), uniforms(2, 3)
    eager, compiled = MovingAverage(0.5), MovingAverage(0.5)

    def run(logits: Tensor, estimator: MovingAverage) -> Tensor:
        q = pgest.Bernoulli(logits)
        return pgest.expect(lambda z: z + 1, q, estimator, num_samples=2, noise=noise).sum()

    fast = torch.compile(run, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        found, expected = fast(logits, compiled), run(logits, eager)
        torch.testing.assert_close(
            torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
        )
    torch.testing.assert_close(compiled.baseline, eager.baseline)
    assert eager.baseline > 0


def test_a_generator_is_refused_in_compiled_code() -> None:
    g = torch.Generator()

    def run(logits: Tensor) -> Tensor:
        return pgest.expect(lambda z: z, pgest.Bernoulli(logits), "reinforce", generator=g)

    torch.compiler.reset()
    with pytest.raises(Exception, match="compiled code passes noise="):
        torch.compile(run, fullgraph=True, backend="aot_eager")(torch.zeros(3))


def through_a_trace(logits: Tensor, noise: Tensor) -> Tensor:
    trace = pgest.Trace(4)
    z = trace.draw(pgest.Bernoulli(trace.expand(logits), event_dims=2), "rloo", noise=noise)
    trace.cost(z.sum((1, 2)) ** 2)
    more = pgest.Bernoulli(logits * z, event_dims=2)
    z = trace.draw(more, "straight_through", noise=noise)
    trace.cost((0.5 + z).sin().sum((1, 2)))
    return trace.value()


def test_a_trace_under_vmap_and_compile() -> None:
    _, logits, noise = case(pgest.Bernoulli, "rloo")
    expected = gradients(through_a_trace, logits, noise)
    found = torch.func.vmap(torch.func.grad_and_value(through_a_trace))(logits, noise)
    torch.testing.assert_close([found[1], found[0]], expected)
    torch.compiler.reset()
    compiled = torch.compile(through_a_trace, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled, logits, noise), expected)


def test_gumbel_softmax_is_torch_s_with_the_same_noise() -> None:
    logits, u = torch.randn(5, 3, requires_grad=True), uniforms(2, 5, 3)
    gumbel = -(-u.log()).log()
    cost = torch.tensor([1.0, 2.0, 4.0])
    expected = (((logits + gumbel) / 0.3).softmax(-1) @ cost).square().mean(0)
    soft, hard = GumbelSoftmax(0.3), STGumbel(0.3)

    def run(estimator: GumbelSoftmax | STGumbel) -> Tensor:
        q = pgest.OneHotCategorical(logits)
        options: dict[str, Any] = {"num_samples": 2, "noise": u}
        return pgest.expect(lambda z: (z @ cost).square(), q, estimator, **options)

    torch.testing.assert_close(run(soft), expected)
    torch.testing.assert_close(
        torch.autograd.grad(run(soft).sum(), logits), torch.autograd.grad(expected.sum(), logits)
    )
    chosen = (logits + gumbel).argmax(-1)
    torch.testing.assert_close(run(hard), cost[chosen].square().mean(0))
    relaxed = ((logits + gumbel) / 0.3).softmax(-1)
    surrogate = (2 * cost[chosen][..., None] * cost * relaxed).sum(-1).mean(0)
    torch.testing.assert_close(
        torch.autograd.grad(run(hard).sum(), logits), torch.autograd.grad(surrogate.sum(), logits)
    )


def test_temperature_may_be_a_tensor() -> None:
    temperature = torch.tensor(0.7, requires_grad=True)
    estimator = GumbelSoftmax(temperature)
    pgest.expect(lambda z: z**2, bits(5), estimator).sum().backward()
    assert temperature.grad is not None
    assert temperature.grad.abs() > 0


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_a_temperature_is_of_a_row(kind: Any) -> None:
    """Square logits, so that the other axis would fit as well."""
    shape = (3, 3) if kind is pgest.OneHotCategorical else (3,)
    q, noise = kind(torch.randn(shape)), uniforms(2, *shape)
    temperature = torch.tensor([0.01, 1.0, 100.0])
    found = q.relaxed((2,), temperature=temperature, noise=noise)
    for i, t in enumerate(temperature.tolist()):
        expected = q.relaxed((2,), temperature=t, noise=noise)
        torch.testing.assert_close(found[:, i], expected[:, i])
    each = temperature.expand(2, 3)  # one for each sample, too
    torch.testing.assert_close(q.relaxed((2,), temperature=each, noise=noise), found)
    message = r"^temperature must be a number or broadcastable to \(2, 3\), one a variable, got"
    for wrong in (torch.ones(4), torch.ones(5, 2, 3)):
        with pytest.raises(ValueError, match=message):
            q.relaxed((2,), temperature=wrong)


def test_instances_compare_by_identity() -> None:
    first, second = (GumbelSoftmax(torch.tensor([0.5, 1.0])) for _ in range(2))
    assert first == first
    assert first != second
    assert len({first, second}) == 2


@pytest.mark.parametrize("kind", [pgest.Bernoulli, pgest.OneHotCategorical])
def test_a_temperature_learns_beside_impossible_values(kind: Any) -> None:
    logits = torch.tensor([[-torch.inf, 0.5, 1.0], [0.0, 0.3, -torch.inf]], requires_grad=True)
    noise = uniforms(2, 2, 3)

    def run(temperature: Tensor, logits: Tensor = logits) -> list[Tensor]:
        estimator = GumbelSoftmax(temperature)
        c = torch.arange(logits.shape[1], 0, -1.0)
        bits = kind(logits, 1) if kind is pgest.Bernoulli else kind(logits)
        u = noise[..., : logits.shape[1]]
        cost = pgest.expect(lambda z: (c * z**2).sum(-1), bits, estimator, num_samples=2, noise=u)
        return [cost, *torch.autograd.grad(cost.sum(), (temperature, logits))]

    temperature = torch.tensor(0.7, requires_grad=True)
    value, by_temperature, by_logits = run(temperature)
    assert value.isfinite().all()
    assert by_logits.isfinite().all()
    assert by_logits[logits.isinf()].abs().max() == 0
    large = torch.where(logits.isinf(), -1e4, logits.detach()).requires_grad_()
    torch.testing.assert_close(by_temperature, run(temperature, large)[1])
    assert by_temperature.abs() > 0


def test_hard_bits_are_those_of_the_score_function() -> None:
    distribution, noise = bits(1000), uniforms(1, 1000)
    hard, score = (
        pgest.expect(lambda z: z, distribution, name, noise=noise)
        for name in ("st_gumbel", "reinforce")
    )
    assert torch.equal(hard, score)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_hard_bits_round_before_the_dtype_does(dtype: torch.dtype, temperature: float) -> None:
    bits = pgest.Bernoulli(torch.zeros(20_000, dtype=dtype))
    noise = torch.rand(1, 20_000, generator=torch.Generator().manual_seed(0))
    hard = pgest.estimators.STGumbel(temperature=temperature)
    z = hard.draw(bits, (1,), None, noise)
    assert z.dtype == dtype
    assert torch.equal(z, bits.sample((1,), noise=noise))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_strides_and_a_batch_without_dimensions_change_nothing(kind: Any, name: str) -> None:
    """`case` has one draw and no batch; its logits come as a view with gaps, and transposed."""
    run, logits, noise = case(kind, name, batch=1)
    expected = gradients(run, logits, noise)
    gaps = logits.repeat_interleave(2, -1)[..., ::2]
    turned = logits.transpose(-1, -2).contiguous().transpose(-1, -2)
    for view in (gaps, turned):
        assert not view[0].is_contiguous()
        leaf = view[0].detach().requires_grad_()
        value = run(leaf, noise[0])
        assert value.shape == ()
        found = [value.detach()[None], torch.autograd.grad(value, leaf)[0][None]]
        torch.testing.assert_close(found, expected)
