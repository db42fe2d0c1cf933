"""Who makes a loss of tokens from hidden states, and its gradients, each at its own settings."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest

ENTROPY_COEF = 0.01


class Inputs(NamedTuple):
    """hidden [N, D], weight [V, D], tokens [N], and whether the loss has an entropy term."""

    hidden: Tensor
    weight: Tensor
    tokens: Tensor
    entropy: bool


class Result(NamedTuple):
    """The loss, the mean of -logp - 0.01 entropy, and the statistics where they are given."""

    loss: Tensor
    logp: Tensor | None = None
    entropy: Tensor | None = None


def result(x: Inputs, logp: Tensor, entropy: Tensor | None) -> Result:
    """The common loss, of statistics."""
    loss = -logp.mean()
    if x.entropy and entropy is not None:
        loss = loss - ENTROPY_COEF * entropy.mean()
    return Result(loss, logp, entropy if x.entropy else None)


def _outputs(x: Inputs) -> tuple[str, ...]:
    return ("logp", "entropy") if x.entropy else ("logp",)


def ours(x: Inputs) -> Result:
    def objective(stats: Any) -> Tensor:
        return -stats.logp - ENTROPY_COEF * stats.entropy if x.entropy else -stats.logp

    loss, stats = pgest.linear_objective(
        x.hidden,
        x.weight,
        x.tokens,
        objective,
        outputs=_outputs(x),
        normalizer=len(x.tokens),
        return_stats=True,
    )
    return Result(loss, stats.logp, stats.entropy)


def ours_composable(x: Inputs) -> Result:
    stats = pgest.linear_token_stats(x.hidden, x.weight, x.tokens, outputs=_outputs(x))
    assert stats.logp is not None
    return result(x, stats.logp, stats.entropy)


def eager(x: Inputs) -> Result:
    log_p = F.linear(x.hidden, x.weight).float().log_softmax(-1)
    logp = log_p.gather(-1, x.tokens[:, None])[:, 0]
    return result(x, logp, -(log_p.exp() * log_p).sum(-1) if x.entropy else None)


def cross_entropy(chunk: int | None, reduction: str) -> Callable[[Inputs], Result]:
    def run(x: Inputs) -> Result:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
        args = (x.hidden, x.weight, x.tokens)
        nll = F.linear_cross_entropy(*args, reduction=reduction, options=options)
        return Result(nll) if reduction == "mean" else Result(nll.mean(), -nll)

    return run


def trl(columns: int) -> Callable[[Inputs], Result]:
    function = importlib.import_module("trl.kernels").ChunkedLogProbFunction

    def run(x: Inputs) -> Result:
        asked = ("entropy",) if x.entropy else ()
        given = (x.hidden, x.weight, None, x.tokens, 1.0, min(columns, len(x.weight)))
        logp, entropy, *_ = function.apply(*given, None, 1.0, asked)
        return result(x, logp, entropy)

    return run


def cut_cross_entropy() -> Callable[[Inputs], Result]:
    function = importlib.import_module("cut_cross_entropy").linear_cross_entropy

    def run(x: Inputs) -> Result:
        return Result(function(x.hidden, x.weight, x.tokens, impl="torch_compile"))

    return run


class Peer(NamedTuple):
    """How to get the function, whether it knows entropy, and the package that it is from."""

    make: Callable[[], Callable[[Inputs], Result]]
    entropy: bool
    package: str | None = None


SLOW = "F.linear_cross_entropy auto"  # a call takes many times as long as any other
PEERS = {
    "linear_objective": Peer(lambda: ours, True),
    "linear_token_stats": Peer(lambda: ours_composable, True),
    "eager": Peer(lambda: eager, True),
    SLOW: Peer(partial(cross_entropy, None, "mean"), False),
    **{
        f"F.linear_cross_entropy {rows}": Peer(partial(cross_entropy, rows, "mean"), False)
        for rows in (128, 512, 1024)
    },
    "F.linear_cross_entropy 512, none": Peer(partial(cross_entropy, 512, "none"), False),
    **{f"TRL {columns}": Peer(partial(trl, columns), True, "trl") for columns in (2048, 32000)},
    "cut-cross-entropy compiled": Peer(cut_cross_entropy, False, "cut_cross_entropy"),
}


def missing(peer: Peer) -> str | None:
    """Why a peer cannot be measured here; None if it can."""
    try:
        peer.make()
    except ImportError as error:
        return str(error)
    return None


def inputs(case: dict[str, Any]) -> Inputs:
    """Those of a case, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, case["dtype"])
    hidden = torch.randn(case["n"], case["d"], generator=generator)
    weight = torch.randn(case["v"], case["d"], generator=generator) * case["d"] ** -0.5
    tokens = torch.randint(case["v"], (case["n"],), generator=generator)
    hidden, weight = (x.to(dtype).requires_grad_() for x in (hidden, weight))
    return Inputs(hidden, weight, tokens, case["with_entropy"])
