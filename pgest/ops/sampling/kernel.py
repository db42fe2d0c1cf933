"""sample in torch's library: schema, what runs without a compiled kernel, fake kernel, vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pgest import reference
from pgest.ops import checks
from pgest.ops.library import define, tell_once
from pgest.ops.rules import biased, front, fronts
from pgest.reference.rows import scaled


def _outputs(logits: Tensor, method: int, num_samples: int, entropy: bool) -> tuple[Tensor, ...]:
    dtype, batch = reference.statistics_dtype(logits), logits.shape[:-1]
    shape = (num_samples, *batch)
    perturbed = shape if reference.METHODS[method] == "without_replacement" else (0,)
    return (
        logits.new_empty(shape, dtype=dtype),
        logits.new_empty(batch if entropy else (0,), dtype=dtype),
        logits.new_empty(shape, dtype=torch.int64),
        logits.new_empty(perturbed, dtype=torch.float64),
        logits.new_empty((3, *batch), dtype=torch.float64),
    )


def _sample(
    logits: Tensor,
    bias: Tensor | None,
    softcap: float,
    temperature: Tensor | None,
    threshold: Tensor | None,
    mask: Tensor | None,
    noise: Tensor,
    method: int,
    num_samples: int,
    entropy: bool,
) -> tuple[Tensor, ...]:
    tell_once()
    policy = (bias, softcap, temperature, threshold, mask)
    u, _, _ = scaled(logits, None, temperature, mask, bias, softcap, threshold)
    name = reference.METHODS[method]
    checks.temperature_values(temperature, logits, mask)
    if logits.device.type == "cpu":  # elsewhere it would synchronise
        _check_values(u, mask, noise, num_samples if method == 3 else 1)
    with torch.no_grad():
        tokens, perturbed = reference.sample(logits, *policy, noise, name, num_samples)
        stats = reference.token_stats(reference.StatsInput(u, tokens, mask=mask))
    outputs = _outputs(logits, method, num_samples, entropy)
    values = (stats.logp, stats.entropy if entropy else None, tokens, perturbed)
    for output, value in zip(outputs, values, strict=False):
        if value is not None:
            output.copy_(value)
    outputs[4].zero_()  # the reference's backward starts from the logits
    return outputs


def _check_values(u: Tensor, mask: Tensor | None, noise: Tensor, needed: int) -> None:
    """What the CPU kernel refuses beside temperatures; the first row of the first complaint."""
    live = torch.ones(u.shape[:-1], dtype=torch.bool) if mask is None else mask

    def first(bad: Tensor) -> int | None:
        rows = (live & bad).flatten().nonzero()
        return int(rows[0]) if len(rows) else None

    row = first(~((noise >= 0) & (noise < 1)).flatten(0, -u.dim()).all(0))
    if row is not None:
        raise ValueError(f"noise must be uniforms in [0, 1), got others in row {row}")
    row = first(~u.amax(-1).isfinite())
    if row is not None:
        raise ValueError(
            "logits must have a possible token in each row, and neither NaN nor +inf, got row "
            f"{row} without"
        )
    possible = (u > -torch.inf).sum(-1)
    row = first(possible < needed)
    if row is not None:
        raise ValueError(
            "num_samples must be at most the number of possible tokens of each row without "
            f"replacement, got {needed} where row {row} has {int(possible.flatten()[row])}"
        )


def _fake(logits: Tensor, *args: Any) -> tuple[Tensor, ...]:
    return _outputs(logits, *args[-3:])


def vmap(op: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    """One more leading dimension of the logits; a bias for each element is added to them."""
    logits, bias, *rows = fronts(info, in_dims[:6], args[:6])
    if in_dims[1] is not None:
        logits, bias = biased(logits, bias), None
    else:
        bias = args[1]
    at = 2 if reference.METHODS[args[7]] == "without_replacement" else 1
    noise = front(args[6], in_dims[6], info.batch_size, at)
    results = op(logits, bias, *rows, noise, *args[7:])
    entropy, perturbed = (0 if args[9] else None), (1 if at == 2 else None)
    return results, (1, entropy, 1, perturbed, 1)


define(
    "sample(Tensor logits, Tensor? bias, float softcap, Tensor? temperature, Tensor? threshold,"
    " Tensor? mask, Tensor noise, int method, int num_samples, bool entropy)"
    " -> (Tensor logp, Tensor entropy, Tensor tokens, Tensor perturbed, Tensor state)",
    _sample,
    _fake,
)
