"""The ops under `token_stats_sum`: the bits of a forward and then a backward, made in one go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from full_stats import DTYPES, INF, change, draw, everything, there
from torch import Tensor

import pgest
from pgest.ops.memory import scale_
from pgest.ops.stats.kernel import BITS, OUTPUTS
from pgest.reference import StatsGrads, StatsInput, statistics_dtype

_ops = torch.ops.pgest
THREE = ("logp", "entropy", "lse")
# Outputs, and which of them have an upstream gradient.
ASKED = [
    (("logp",), ("logp",)),
    (THREE, THREE),
    (THREE, ("entropy",)),
    (OUTPUTS, StatsGrads._fields),
    (("logp", "entropy", "kl", "reverse_kl"), ("logp", "kl")),
    (("entropy", "value", "argmax"), ("value",)),
    ((*THREE, "argmax", "rank"), THREE),  # a full forward, a plain backward
    (("logp", "kl", "value"), ("logp", "value")),  # a reference that only the forward reads
    (THREE, ()),
]


def raw(x: StatsInput, outputs: tuple[str, ...]) -> list[Any]:
    """The arguments of the ops, with what the outputs read."""
    if not {"kl", "reverse_kl"} & set(outputs):
        x = change(x, reference_logits=None)
    if "value" not in outputs:
        x = change(x, values=None)
    wide = statistics_dtype(x.logits)
    return [*change(x, bias=None if x.bias is None else x.bias.to(wide))]


def upstream(x: StatsInput, names: tuple[str, ...]) -> list[Tensor | None]:
    """Gradients of some statistics; those of the first row are 0."""
    grads = []
    for i, name in enumerate(StatsGrads._fields):
        shape = there(x.tokens).shape if name == "logp" else x.logits.shape[:-1]
        grad = draw(*shape, seed=20 + i).to(statistics_dtype(x.logits))
        grad[..., 0, :] = 0
        grads.append(grad if name in names else None)
    return grads


def cases(vocab: int, dtype: torch.dtype) -> dict[str, StatsInput]:
    x = everything(batch=(5, 3), vocab=vocab)
    x = change(x, **{n: there(getattr(x, n)).to(dtype) for n in ("logits", "reference_logits")})
    x = change(x, values=there(x.values).to(statistics_dtype(x.logits)))
    there(x.logits)[1, 1, ::2] = -INF
    there(x.logits)[2, 1, 0] = math.nan
    bare = change(x, bias=None, softcap=0.0, threshold=None)
    return {
        "all": x,
        "bare": bare,
        "no temperature": change(bare, temperature=None, mask=None),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocab", [1, 12, 100, 700, 2500, 9001])
def test_the_same_bits_as_the_forward_and_then_the_backward(vocab: int, dtype: torch.dtype) -> None:
    for x in cases(vocab, dtype).values():
        by_temperature = x.temperature is not None
        for outputs, names in ASKED:
            args, grads = raw(x, outputs), upstream(x, names)
            bits = sum(BITS[name] for name in outputs)
            *stats, state = _ops.token_stats(*args, bits)
            gradients = _ops.token_stats_backward(*args, state, *grads, by_temperature)
            found = _ops.token_stats_gradient(*args, *grads, bits, by_temperature)
            assert_same_bits(found, [*stats, *gradients])
            logits = x.logits.clone()
            found = _ops.token_stats_gradient_(logits, *args[1:], *grads, bits, by_temperature)
            assert_same_bits([*found[:-1], logits, found[-1]], [*stats, *gradients])


def assert_same_bits(ours: list[Tensor], theirs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_raw_gradients_of_what_is_not_asked_for_are_refused() -> None:
    x = everything()
    bits, grads = BITS["entropy"], upstream(x, ("entropy", "lse"))
    if pgest.backend() == "native":
        with pytest.raises(RuntimeError, match="gradients are given of what outputs do not ask"):
            _ops.token_stats_gradient(*raw(x, ("entropy",)), *grads, bits, False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (2, 4099), (0, 4), (6000, 3), (7,)], ids=str)
def test_scaling_rounds_once_and_leaves_strides_alone(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    before = draw(*shape[:-1], shape[-1] + 2).to(dtype)
    for by in (1.0, 0.3, -1e4, math.nan):
        x = before.clone()
        scale_(x[..., 1:-1], torch.tensor(by, dtype=wide))
        expected = (before[..., 1:-1].to(wide) * torch.tensor(by, dtype=wide)).to(dtype)
        torch.testing.assert_close(x[..., 1:-1], expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(x[..., 0], before[..., 0])
        assert torch.equal(x[..., -1], before[..., -1])


def test_the_tensor_that_joins_loss_and_gradients_is_an_op() -> None:
    value, logits = torch.tensor(2.0).double().requires_grad_(), draw(2, 3).requires_grad_()
    bias, temperature = draw(3).requires_grad_(), draw(2).requires_grad_()
    args = (value, logits, bias, temperature, draw(2, 3, seed=1), draw(2, seed=2))
    torch.library.opcheck(_ops.with_gradients.default, args)
    torch.library.opcheck(_ops.scale_.default, (draw(2, 3), torch.tensor(2.0).double()))


def test_the_op_in_place_does_what_its_schema_says() -> None:
    x = everything()
    args = (*raw(x, OUTPUTS), *upstream(x, StatsGrads._fields), sum(BITS.values()), True)
    utils = ("test_schema", "test_faketensor")  # compiled code is refused
    torch.library.opcheck(_ops.token_stats_gradient_.default, args, test_utils=utils)
