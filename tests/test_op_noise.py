"""One door of randomness for all that draws, ops and distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import pgest

DRAWS: dict[str, Callable[..., Any]] = {
    "sample": lambda z, **options: pgest.sample(z, **options).tokens,
    "gumbel_softmax": pgest.gumbel_softmax,
    "sample_bits": pgest.sample_bits,
    "Bernoulli": lambda z, **options: pgest.Bernoulli(z).sample(**options),
    "Categorical": lambda z, **options: pgest.Categorical(z).sample(**options),
    "relaxed": lambda z, **options: pgest.OneHotCategorical(z).relaxed(**options),
}
draws = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@draws
def test_a_generator_is_a_generator(draw: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got int"):
        draw(torch.zeros(3, 4), generator=0)


@draws
def test_a_generator_is_for_eager_code(draw: Callable[..., Any]) -> None:
    generator = torch.Generator()

    def run(z: Tensor) -> Any:
        return draw(z, generator=generator)

    with pytest.raises(ValueError, match=r"generator is for eager code: code under torch\.func"):
        torch.vmap(run, randomness="different")(torch.zeros(2, 3, 4))


@draws
def test_noise_and_generator_exclude_each_other(draw: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="noise and generator exclude each other"):
        draw(torch.zeros(3, 4), generator=torch.Generator(), noise=torch.zeros(3, 4))


def test_integers_of_the_logits_shape_are_not_taken_for_tokens() -> None:
    one_hot = torch.nn.functional.one_hot(torch.tensor([2, 0, 1, 3]), 4)
    with pytest.raises(ValueError, match=r"sample must be tokens \(4,\) .* pass one_hot.to"):
        pgest.straight_through(torch.zeros(4, 4), one_hot)
