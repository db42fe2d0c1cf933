"""Several stochastic nodes inside ordinary modules, each with its own estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from pgest.distributions import Distribution, as_distribution
from pgest.estimators import Estimator, LocalEstimator, checks
from pgest.estimators.registry import resolve


@dataclass(frozen=True)
class _Site:
    distribution: Distribution
    given: checks.Given
    estimator: LocalEstimator


@dataclass(frozen=True)
class _Cost:
    cost: Tensor
    draws: int  # how many came before it
    nodes: set[int] | None


class Trace:
    """Records the draws and costs of one forward pass, and gives the value to differentiate.

        value = 1/S sum_s (all costs of sample s),   value.backward() ~ grad E[costs]

    S samples run side by side through the whole network: `expand` repeats the input, each `draw`
    takes one sample an element, and sample s of a layer is the input of sample s of the next. What
    a draw has to answer for are the costs recorded after it.

    Args:
        num_samples: S, dimension 0 of everything downstream of `expand`.
        generator: reproduces the draws; eager code only.

    Samples and elements of the batch must not see each other, or the estimates are biased: batch
    normalisation in training mode makes them.

    A trace serves one forward pass: after `value` it takes nothing more. It is passed by the
    caller; nothing is global.

    Memory: what autograd keeps of S passes, plus a cost and a weight for each sample and draw.

    Source: the surrogate of Schulman et al. (2015), arXiv 1506.05254.

    Example:
        >>> l1, l2 = torch.nn.Linear(6, 4), torch.nn.Linear(4, 3)
        >>> trace = pgest.Trace(num_samples=8, generator=torch.Generator().manual_seed(0))
        >>> x = trace.expand(torch.ones(5, 6))
        >>> b1 = trace.draw(pgest.Bernoulli(l1(x), event_dims=1), "rloo")
        >>> b2 = trace.draw(pgest.Bernoulli(l2(b1), event_dims=1), "straight_through")
        >>> trace.cost(b2.sum(-1))
        >>> trace.value().mean().backward()
        >>> b2.shape, l1.weight.grad.shape
        (torch.Size([8, 5, 3]), torch.Size([4, 6]))
    """

    def __init__(
        self, num_samples: SupportsIndex = 1, *, generator: torch.Generator | None = None
    ) -> None:
        self.num_samples = checks.num_samples(num_samples)
        self._generator = generator
        self._sites: list[_Site] = []
        self._costs: list[_Cost] = []
        self._shape: tuple[int, ...] | None = None
        self._shape_is_of = ""  # what fixed it
        self._expanded: list[Tensor] = []
        self._closed = False

    def __repr__(self) -> str:
        counts = f"{len(self._sites)} draws, {len(self._costs)} costs"
        return f"Trace(num_samples={self.num_samples}: {counts}{', closed' * self._closed})"

    def expand(self, x: Tensor) -> Tensor:
        """Repeat an input for each sample, [B, ...] -> [S, B, ...]: a view, nothing is copied.

        Raises:
            TypeError: no tensor.
            ValueError: what this trace has expanded or drawn already has its samples.
        """
        self._check_open()
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a tensor [B, ...], got {type(x).__name__}")
        if any(x is y for y in self._expanded) or any(
            x is site.given.sample for site in self._sites
        ):
            raise ValueError(
                f"x must be an input without the samples, [B, ...], got {tuple(x.shape)} that this "
                "trace has expanded or drawn already: expand an input once, and nothing after it"
            )
        expanded = x.expand(self.num_samples, *x.shape)
        self._expanded.append(expanded)
        return expanded

    def draw(
        self,
        distribution: Any,
        estimator: str | Estimator,
        *,
        noise: Tensor | None = None,
        shared: bool = False,
    ) -> Tensor:
        """Draw one sample for each element of a distribution with batch shape [S, *batch].

        Args:
            distribution: as in `pgest.expect`.
            estimator: a name or an instance that is local: one that needs no more than samples and
                their costs.
            noise: uniforms in [0, 1), shaped like the sample, without the axis V of one-hot vectors
                (see `pgest.expect`); the generator is left alone then.
            shared: elements of the batch share the draw, as stochastic weights are: its batch shape
                may lack trailing dimensions of the costs', of all of which it answers for the sum.

        Returns:
            [S, *batch, *event_shape], detached save for the path of a pathwise estimator.

        Raises:
            TypeError, ValueError: what the estimator does not take; a batch shape that does not
                begin with S, or differs from other draws'.
        """
        self._check_open()
        chosen, drawn = resolve(estimator), as_distribution(distribution)
        if not isinstance(chosen, LocalEstimator):
            raise ValueError(
                f"{chosen.name} is not local, as the estimators of a trace must be: it chooses "
                "itself at which values the cost is evaluated; use it with pgest.expect"
            )
        chosen.check(drawn, self.num_samples)
        self._check_batch(drawn, shared)
        if chosen.traits.stateful and any(s.estimator.owner is chosen.owner for s in self._sites):
            raise ValueError(
                f"{chosen.name} keeps state, and one instance serves one draw of a trace: its "
                "baseline at one draw must not learn from another's cost; make one for each"
            )
        sample = chosen.draw(drawn, (), None if noise is not None else self._generator, noise)
        given = checks.Given(sample, chosen)
        self._sites.append(_Site(drawn, given, chosen))
        return given.sample

    def cost(self, cost: Tensor, *, nodes: Sequence[Tensor] | None = None) -> None:
        """Add a cost [S, *batch], for which every draw so far answers, or only those of `nodes`.

        Args:
            cost: its own gradient counts as well, as in `pgest.expect`.
            nodes: samples as `draw` returned them. Leaving out a draw is right only if the cost
                does not depend on it; it makes the estimate less noisy as a rule, that is where
                this cost does not happen to make up for others.

        Raises:
            TypeError, ValueError: a cost of another shape or dtype, by name; `nodes` that are not
                this trace's samples.
        """
        self._check_open()
        last = self._sites[-1].distribution if self._sites else None
        batch = cost.shape[1:] if isinstance(cost, Tensor) else ()
        cost = checks.cost(cost, self._shape or (self.num_samples, *batch), last, traced=True)
        if self._shape is None:
            self._fix_shape(tuple(cost.shape), "the first cost")
        if isinstance(nodes, Tensor):
            raise TypeError("nodes must be a list of samples, got a tensor: write nodes=[z]")
        chosen = None if nodes is None else {self._index(node) for node in nodes}
        self._costs.append(_Cost(cost, len(self._sites), chosen))

    def value(self) -> Tensor:
        """Return the mean over samples of the sum of all costs, [*batch], to be differentiated.

        Raises:
            ValueError: without a cost; where no path leads from a cost to a pathwise draw that has
                to answer for one (looked for in eager code only).
        """
        self._check_open()
        if not self._costs:
            raise ValueError("value needs a cost: this trace has none")
        for site in self._sites:
            site.given.check_unchanged()
        value = sum((entry.cost for entry in self._costs[1:]), self._costs[0].cost).mean(0)
        answering: list[tuple[checks.Given, str]] = []
        for i, (site, cost) in enumerate(zip(self._sites, self._answers(), strict=True)):
            if cost is not None:
                value = site.estimator.attach(value, site.distribution, site.given.drawn, cost)
                answering.append((site.given, f"draw {i}, of {site.distribution!r}"))
        checks.paths(value, answering)
        self._closed = True
        return value

    def _answers(self) -> list[Tensor | None]:
        """The detached cost that each draw has to answer for, None where nothing follows it."""
        named: list[Tensor | None] = [None] * len(self._sites)
        later: list[Tensor | None] = [None] * len(self._sites)
        for entry in self._costs:
            cost = entry.cost.detach()
            for i in entry.nodes or ():
                named[i] = _add(named[i], cost)
            if entry.nodes is None and entry.draws:
                later[entry.draws - 1] = _add(later[entry.draws - 1], cost)
        # From the last draw to the first, so that n draws and n costs take n additions, not n^2.
        running: Tensor | None = None
        for i in reversed(range(len(self._sites))):
            running = _add(running, later[i])
            named[i] = _add(named[i], running)
        return named

    def _index(self, node: Tensor) -> int:
        for i, site in enumerate(self._sites):
            if site.given.sample is node:
                return i
        raise ValueError("nodes must list samples that this trace's draw returned, got another one")

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this trace has given its value: make a new Trace for each pass")

    def _fix_shape(self, shape: tuple[int, ...], of: str) -> None:
        """Settle the shape of the costs, which shared draws must begin."""
        for site in self._sites:
            if (begins := tuple(site.distribution.batch_shape)) != shape[: len(begins)]:
                raise ValueError(
                    f"the batch shape {begins} of the shared draw of {site.distribution!r} must "
                    f"begin the costs', got {shape} of {of}"
                )
        self._shape, self._shape_is_of = shape, of

    def _check_batch(self, distribution: Distribution, shared: bool) -> None:
        shape = tuple(distribution.batch_shape)
        if not self._expanded:
            raise ValueError("nothing was expanded: pass the input through trace.expand first")
        if self._shape is None and shape[:1] == (self.num_samples,) and not shared:
            self._fix_shape(shape, repr(distribution))
        expected: tuple[int | str, ...] = self._shape or (self.num_samples, "*batch")
        begun = shape[:1] == (self.num_samples,) and shape == (self._shape or shape)[: len(shape)]
        if shape != expected and not (shared and begun):
            like = f", like {self._shape_is_of}" if self._shape else ""
            advice = "event_dims says how many trailing dimensions form one draw"
            if shape[1:] == expected:
                advice = "was its input expanded twice?"
            raise ValueError(
                f"distribution must have batch shape {expected}{like}, got {shape} of "
                f"{distribution!r}; {advice}"
            )


def _add(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return y if x is None else x if y is None else x + y
