"""What `sample` refuses, by name."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from test_sample import example, noise
from torch import Tensor

import pgest
from pgest.reference import METHODS


def test_generators_are_for_eager_code() -> None:
    generator = torch.Generator()

    def run(logits: Tensor) -> Tensor:
        return pgest.sample(logits, 2, generator=generator).tokens

    torch.compiler.reset()
    with pytest.raises(Exception, match="compiled code passes noise="):
        torch.compile(run, fullgraph=True, backend="aot_eager")(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"code under torch\.func passes noise="):
        torch.vmap(run)(torch.zeros(2, 3))
    different = torch.vmap(lambda z: pgest.sample(z, 2).tokens, randomness="different")
    assert len(different(torch.zeros(20, 1000)).unique()) > 20


def bad_row(value: float) -> Tensor:
    logits = example()
    logits[2, 1] = value if value == -math.inf else logits[2, 1]
    logits[2, 1, 4] = value
    return logits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_without_a_law_are_named(method: str, value: float) -> None:
    message = "logits must have a possible token in each row, and neither NaN nor +inf, got row 7"
    with pytest.raises(ValueError, match=re.escape(message)):
        pgest.sample(bad_row(value), 2, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_noise_outside_its_range_is_named(method: str, value: float) -> None:
    u = noise(method, 2)
    u.view(-1)[-2] = value  # of the last row but one
    with pytest.raises(ValueError, match=re.escape("noise must be uniforms in [0, 1), got others")):
        pgest.sample(example(), 2, method=method, noise=u)


def test_more_samples_than_possible_tokens_are_named() -> None:
    logits = example()
    logits[1, 0, 3:] = -math.inf
    draw = {"method": "without_replacement"}
    assert pgest.sample(logits, 3, **draw).tokens[:, 1, 0].sort().values.tolist() == [0, 1, 2]  # type: ignore[arg-type]
    message = "num_samples must be at most the number of possible tokens of each row without "
    with pytest.raises(ValueError, match=message + "replacement, got 4 where row 3 has 3"):
        pgest.sample(logits, 4, **draw)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message + "replacement, got 4 where row 0 has 2"):
        pgest.sample(logits, 4, top_k=2, **draw)  # type: ignore[arg-type]
    masked = logits[..., 0] == logits[..., 0]
    masked[1, 0] = False
    assert pgest.sample(logits, 9, mask=masked, **draw).tokens.shape == (9, 4, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples must be at least 1, got 0"),
        ({"num_samples": 2.0}, TypeError, "num_samples must be an integer, got float"),
        ({"num_samples": True}, TypeError, "num_samples must be an integer, got bool"),
        ({"method": "gumbel"}, ValueError, "method must be one of ('independent', 'antithetic'"),
        ({"outputs": "logp"}, ValueError, "outputs must be a sequence of names from"),
        ({"outputs": ("lse",)}, ValueError, "outputs must be names from ('logp', 'entropy')"),
        ({"temperature": 0}, ValueError, "temperature must be positive and finite, got 0"),
        ({"temperature": -torch.ones(3)}, ValueError, "got -1.0"),
        ({"softcap": -1.0}, ValueError, "softcap must be positive and finite, got -1.0"),
        ({"bias": torch.zeros(2)}, ValueError, "bias must have shape (9,)"),
        ({"threshold": "low"}, TypeError, "threshold must be a number or a tensor, got str"),
        ({"threshold": torch.zeros(2)}, ValueError, "broadcastable to (4, 3) like logits[..., 0]"),
        ({"threshold": 0.0, "top_k": 2}, ValueError, "threshold and top_k, top_p or min_p exclude"),
        ({"threshold": 1e3}, ValueError, "logits must have a possible token in each row"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
        ({"top_p": 2.0}, ValueError, "top_p must be in (0, 1], got 2.0"),
        ({"min_p": 0.0}, ValueError, "min_p must be in (0, 1], got 0.0"),
        ({"mask": torch.zeros(4, 3)}, TypeError, "mask must be a bool tensor"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator, got int"),
        ({"noise": torch.zeros(1, 4, 3).long()}, TypeError, "noise must be a floating-point"),
        ({"noise": torch.zeros(4, 3)}, ValueError, "noise must have shape (1, 4, 3), got (4, 3)"),
        (
            {"noise": torch.zeros(1, 4, 3), "generator": torch.Generator()},
            ValueError,
            "noise and generator exclude each other: got both",
        ),
        (
            {"noise": torch.zeros(2, 4, 3), "method": "without_replacement"},
            ValueError,
            "noise must have shape (2, 1, 4, 3), got (2, 4, 3)",
        ),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        pgest.sample(example(), **options)
    with pytest.raises(TypeError, match="logits must be a tensor, got list"):
        pgest.sample([0.0])  # type: ignore[arg-type]
