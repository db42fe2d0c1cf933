"""What an estimator is: what it declares, what it is refused for, and the two kinds there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pgest.distributions import Categorical, Distribution

Cost = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Traits:
    """What an estimator declares about itself; misuse is refused by these, by name.

    Attributes:
        unbiased: its expectation is the gradient, for every f.
        evaluations: of f, per call with S = `num_samples`.
        exact_for: the class of f for which a biased one has the right expectation.
        needs_path: f must be differentiable in the sample.
        distributions: what it takes; any subclass of `Distribution` unless it says otherwise.
        min_samples: the smallest `num_samples`.
        multiple: of which `num_samples` is one, 2 where samples come in pairs.
        stateful: calls change it, so that it is an instance of the user's, not a name.
        scores: it takes the sample's probability after f ran, which must not change it in place.
        enumerable: an estimate is a function of S independent draws by `Distribution.sample` from
            `noise` [S, *batch_shape, *event_shape] (without the axis V), and of nothing else, and
            f is seen on the support alone: its moments are sums over what may be drawn.
    """

    unbiased: bool
    evaluations: str = "S"
    exact_for: str = ""
    needs_path: bool = False
    distributions: tuple[type[Distribution], ...] = (Distribution,)
    min_samples: int = 1
    multiple: int = 1
    stateful: bool = False
    scores: bool = True
    enumerable: bool = False


class Estimator(ABC):
    """A value that estimates E[f(z)] and whose backward estimates the gradient.

    A subclass declares `name` and `traits` and implements `estimate`. One with parameters or state
    is an `nn.Module` too and is used as an instance.

    Attributes:
        name: what messages call it, and its name in the registry if it has one.
        traits: what it declares.
        fit_loss: set by each call of an estimator that learns: a scalar whose backward touches only
            the estimator's own parameters.
    """

    name: ClassVar[str]
    traits: ClassVar[Traits]
    fit_loss: Tensor | None = None

    @property
    def frozen(self) -> bool:
        """Whether calls leave a stateful one as it is for now."""
        return False

    @property
    def owner(self) -> Estimator:
        """Whose state it keeps: itself, unless it was made for one call of another."""
        return self

    def noise_shape(self, distribution: Distribution, num_samples: int) -> torch.Size:
        """Return the shape of the uniforms that `noise` takes: one a variable of each sample."""
        return torch.Size((num_samples, *distribution.variables))

    def __repr__(self) -> str:
        return (
            nn.Module.__repr__(self) if isinstance(self, nn.Module) else f"{type(self).__name__}()"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Everything but `fit_loss`, whose graph cannot be copied and belongs to the last call."""
        return {k: v for k, v in self.__dict__.items() if k != "fit_loss"}

    @abstractmethod
    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the value, [*batch_shape]; called by `expect`, which checks all arguments.

        `f` returns costs [n, *batch_shape], checked, for z [n, *batch_shape, *event_shape].
        """

    def check(self, distribution: Distribution, num_samples: int) -> None:
        """Refuse by name what the traits exclude.

        Raises:
            TypeError: a distribution that it does not take.
            ValueError: too few samples; state under torch.func's transforms.
        """
        traits = self.traits
        if not isinstance(distribution, traits.distributions):
            names = " or ".join(d.__name__ for d in traits.distributions)
            integers = isinstance(distribution, Categorical) and traits.needs_path
            hint = ", whose samples are integers and carry no gradient" if integers else ""
            raise TypeError(f"{self.name} takes {names}, got {type(distribution).__name__}{hint}")
        if num_samples < traits.min_samples:
            raise ValueError(
                f"num_samples must be at least {traits.min_samples} for {self.name}, "
                f"got {num_samples}"
            )
        if num_samples % traits.multiple:
            raise ValueError(
                f"num_samples must be a multiple of {traits.multiple} for {self.name}, "
                f"got {num_samples}"
            )
        if traits.stateful and not self.frozen and torch._C._are_functorch_transforms_active():
            raise ValueError(
                f"{self.name} keeps state, which torch.func transforms do not carry unless it is "
                "frozen"
            )


class LocalEstimator(Estimator):
    """One that needs no more than samples and their costs: it also works at one draw of a `Trace`.

    A subclass implements `draw` and `attach`. Costs come per sample, whatever computes them.
    """

    @abstractmethod
    def draw(
        self,
        distribution: Distribution,
        sample_shape: Sequence[int],
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return samples, [*sample_shape, *batch_shape, *event_shape]."""

    @abstractmethod
    def attach(
        self, value: Tensor, distribution: Distribution, sample: Tensor, cost: Tensor
    ) -> Tensor:
        """Return `value` [*batch_shape] with the gradient of the distribution's parameters added.

        `cost` [S, *batch_shape] is what the draw of `sample` [S, ...] has to answer for. Neither
        it nor the value may change. Both have further dimensions where elements of a batch share
        the draw: each element's value gets the gradient of its own cost.
        """

    def estimate(
        self,
        f: Cost,
        distribution: Distribution,
        num_samples: int,
        generator: torch.Generator | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return the mean cost of `num_samples` draws, with the gradient attached."""
        sample = self.draw(distribution, (num_samples,), generator, noise)
        cost = f(sample)
        return self.attach(cost.mean(0), distribution, sample, cost)
