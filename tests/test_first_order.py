"""A sampled estimate has a first derivative; a second one is refused, never silently wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_expect import takes, uniforms
from torch import Tensor

import pgest
from pgest.estimators import DiCE, Exact, MovingAverage, Pathwise, SparseExpectation, registry
from pgest.estimators.first_order import add_surrogate
from pgest.estimators.registry import resolve

ANY_ORDER = Exact | DiCE | SparseExpectation
SAMPLED = [n for n, e in registry.items() if not isinstance(e, ANY_ORDER | Pathwise)]
KINDS = (pgest.Bernoulli, pgest.OneHotCategorical, pgest.Categorical)
LOGITS, NET = torch.tensor([0.3, -1.1, 0.8]), torch.tensor([1.0, -0.5, 2.0])
NOISE = uniforms(100)
REFUSED = "^expect: {} is of first order only: the second derivative"


def value(
    logits: Tensor, net: Tensor = NET, estimator: Any = "rloo", kind: Any = pgest.Bernoulli
) -> Tensor:
    """An estimate whose cost has parameters of its own and uses the logits as well."""
    q = kind(logits, event_dims=1) if kind is pgest.Bernoulli else kind(logits)
    shape = resolve(estimator).noise_shape(q, 4)
    noise = NOISE[: shape.numel()].view(shape)

    def f(z: Tensor) -> Tensor:
        x = torch.nn.functional.one_hot(z, 3).float() if kind is pgest.Categorical else z
        return ((x * net).sum(-1) - logits.sum()) ** 2 * logits[0]

    return pgest.expect(f, q, estimator, num_samples=4, noise=noise)


def leaves() -> tuple[Tensor, Tensor]:
    return LOGITS.clone().requires_grad_(), NET.clone().requires_grad_()


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in SAMPLED if takes(name, kind)]
)
def test_a_second_derivative_is_refused(kind: Any, name: str) -> None:
    for by, then in ((0, 0), (0, 1), (1, 0)):
        inputs = leaves()
        first = torch.autograd.grad(value(*inputs, name, kind), inputs[by], create_graph=True)
        with pytest.raises(RuntimeError, match=REFUSED.format(name)):
            torch.autograd.grad(first[0].sum(), inputs[then])
    inputs = leaves()
    first = torch.autograd.grad(value(*inputs, name, kind), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED.format(name)):
        (first[0].square().sum() + first[1].sum()).backward()


def test_a_moving_average_is_refused_by_its_name() -> None:
    inputs = leaves()
    estimate = value(*inputs, MovingAverage())
    (first,) = torch.autograd.grad(estimate, inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED.format("MovingAverage")):
        first.sum().backward()


@pytest.mark.parametrize("outer", [torch.func.jacrev, torch.func.jacfwd])
@pytest.mark.parametrize("inner", [torch.func.jacrev, torch.func.jacfwd])
def test_a_hessian_is_refused(outer: Callable[..., Any], inner: Callable[..., Any]) -> None:
    first = inner(value)
    torch.testing.assert_close(first(LOGITS), torch.autograd.functional.jacobian(value, LOGITS))
    with pytest.raises(RuntimeError, match=REFUSED.format("rloo")):
        outer(first)(LOGITS)
    with pytest.raises(RuntimeError, match=REFUSED.format("rloo")):
        torch.func.hessian(value)(LOGITS)


def test_compiled_code_refuses_it_too() -> None:
    logits, _ = leaves()
    compiled = torch.compile(value, backend="aot_eager", fullgraph=True)
    (first,) = torch.autograd.grad(compiled(logits), logits, create_graph=True)
    torch.testing.assert_close(first, torch.autograd.grad(value(logits), logits)[0])
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        torch.autograd.grad(first.sum(), logits)


FORMS: dict[str, Callable[..., Any]] = {
    "hessian": torch.func.hessian,
    "jacrev of jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "grad of grad": lambda f: torch.func.grad(lambda x: torch.func.grad(f)(x).sum()),
}


@pytest.mark.parametrize("form", FORMS)
def test_transforms_in_compiled_code_refuse_it_too(form: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(FORMS[form](value), backend="aot_eager", fullgraph=True)
    # The compiler wraps the refusal; without a full graph, eager code refuses it by name.
    with pytest.raises(Exception, match=r"of first order only|Observed exception"):
        compiled(LOGITS)


@pytest.mark.parametrize("form", [torch.func.grad, torch.func.jacfwd])
def test_transforms_in_compiled_code_have_the_first_one(form: Callable[..., Any]) -> None:
    torch.compiler.reset()
    found = torch.compile(form(value), backend="aot_eager", fullgraph=True)(LOGITS)
    torch.testing.assert_close(found, form(value)(LOGITS))


def test_a_draw_of_a_trace_is_refused() -> None:
    logits = LOGITS.clone().requires_grad_()
    trace = pgest.Trace(4)
    z = trace.draw(pgest.Bernoulli(trace.expand(logits), event_dims=1), "rloo")
    b = trace.draw(pgest.Bernoulli(z * logits, event_dims=1), "straight_through")
    trace.cost((b + z).prod(-1))
    (first,) = torch.autograd.grad(trace.value(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match=REFUSED.format("rloo")):
        torch.autograd.grad(first.sum(), logits)


@pytest.mark.parametrize("kind", KINDS)
def test_create_graph_alone_changes_nothing(kind: Any) -> None:
    inputs = leaves()
    expected = torch.autograd.grad(value(*inputs, kind=kind), inputs)
    found = torch.autograd.grad(value(*inputs, kind=kind), inputs, create_graph=True)
    torch.testing.assert_close(found, expected)


def test_f_has_every_derivative_in_its_own_parameters() -> None:
    expected = torch.func.hessian(value, argnums=1)(LOGITS, NET)
    assert expected.abs().max() > 0
    logits, net = leaves()
    (first,) = torch.autograd.grad(value(logits, net), net, create_graph=True)
    for i in range(3):
        (row,) = torch.autograd.grad(first[i], net, retain_graph=True)
        torch.testing.assert_close(row, expected[i])


def test_what_multiplies_the_value_may_be_learned() -> None:
    """The gradient is linear in the loss's own weight: that derivative is right."""
    logits, _ = leaves()
    weight = torch.tensor(2.0, requires_grad=True)
    (first,) = torch.autograd.grad(weight * value(logits), logits, create_graph=True)
    (found,) = torch.autograd.grad(first.sum(), weight)
    torch.testing.assert_close(found, torch.autograd.grad(value(logits), logits)[0].sum())


def test_exact_has_a_hessian() -> None:
    found = torch.func.hessian(lambda x: value(x, estimator="exact"))(LOGITS)
    expected = torch.autograd.functional.hessian(
        lambda x: value(x, estimator="exact"), LOGITS.clone()
    )
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0.01


def test_a_broken_row_shows_in_the_value() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, torch.nan]], requires_grad=True)

    def run(logits: Tensor) -> Tensor:
        return add_surrogate(torch.ones(2), logits.sum(-1), "rloo")

    for found in (run(logits), torch.compile(run, backend="eager", fullgraph=True)(logits)):
        assert found.isnan().tolist() == [False, True]
