"""What `token_stats` refuses of the arguments beyond logits, tokens, temperature and mask."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from full_stats import there

import pgest
from pgest.ops.stats import kernel
from pgest.ops.stats.kernel import BITS
from pgest.reference import StatsInput

LOGITS = torch.zeros(4, 3, 6)
FEW = torch.zeros(4, 3, 2)
PLACES = torch.ones(4, 3, 2, dtype=torch.long)
KL: dict[str, Any] = {"outputs": ("kl",)}
VALUE: dict[str, Any] = {"outputs": ("value",)}

MISUSE: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "bias must be a floating-point tensor, got list", {"bias": [0.0]}),
    (TypeError, r"bias must be .* got torch\.int64", {"bias": torch.zeros(6).long()}),
    (ValueError, r"bias must have shape \(6,\) .* got \(5,\)", {"bias": torch.zeros(5)}),
    (TypeError, "softcap must be a number, got str", {"softcap": "30"}),
    (ValueError, "softcap must be positive and finite, got 0", {"softcap": 0}),
    (ValueError, "softcap must be positive and finite, got nan", {"softcap": math.nan}),
    (TypeError, "threshold must be a number or a tensor, got str", {"threshold": "low"}),
    (TypeError, r"threshold must be .* got torch\.int64", {"threshold": torch.tensor(1)}),
    (
        ValueError,
        r"threshold must be .* broadcastable to \(4, 3\) .* got shape \(2,\)",
        {"threshold": torch.zeros(2)},
    ),
    (
        ValueError,
        "threshold must not require a gradient",
        {"threshold": torch.zeros(4, 3, requires_grad=True)},
    ),
    (ValueError, "threshold and top_k, top_p or min_p exclude", {"threshold": 0.0, "top_k": 2}),
    (ValueError, "top_k must be at least 1, got 0", {"top_k": 0}),
    (ValueError, r"top_p must be in \(0, 1\], got 1\.5", {"top_p": 1.5}),
    (ValueError, 'tokens must be a tensor when .* "rank", got None', {"outputs": ("rank",)}),
    (
        ValueError,
        'reference_logits must be None unless outputs ask for "kl" or "reverse_kl"',
        {"outputs": ("entropy", "value"), "values": LOGITS, "reference_logits": LOGITS},
    ),
    (
        ValueError,
        'values must be None unless outputs ask for "value"',
        {**KL, "reference_logits": LOGITS, "values": LOGITS},
    ),
    (
        ValueError,
        'value_tokens must be None unless outputs ask for "value"',
        {"value_tokens": PLACES},
    ),
    (ValueError, 'reference_logits must be given when outputs ask for "kl"', KL),
    (TypeError, "reference_logits must be a tensor, got int", {**KL, "reference_logits": 0}),
    (
        TypeError,
        r"reference_logits must be torch\.float32 like logits, got torch\.float64",
        {**KL, "reference_logits": LOGITS.double()},
    ),
    (
        ValueError,
        r"reference_logits must have shape \(4, 3, 6\) like logits, got \(6,\)",
        {**KL, "reference_logits": LOGITS[0, 0]},
    ),
    (
        ValueError,
        "reference_logits must not require a gradient",
        {**KL, "reference_logits": LOGITS.clone().requires_grad_()},
    ),
    (ValueError, 'values must be given when outputs ask for "value"', VALUE),
    (TypeError, "values must be a tensor, got float", {**VALUE, "values": 0.5}),
    (
        TypeError,
        r"values must be torch\.float32, got torch\.float64",
        {**VALUE, "values": LOGITS.double()},
    ),
    (
        ValueError,
        r"values must have shape \(4, 3, 6\) .*, or come with value_tokens, got \(4, 3, 2\)",
        {**VALUE, "values": FEW},
    ),
    (
        ValueError,
        "values must not require a gradient",
        {**VALUE, "values": LOGITS.clone().requires_grad_()},
    ),
    (
        TypeError,
        r"value_tokens must be integers, got torch\.float32",
        {**VALUE, "values": FEW, "value_tokens": FEW},
    ),
    (
        ValueError,
        r"value_tokens must have shape \(4, 3, K\), got \(3, 2\)",
        {**VALUE, "values": FEW, "value_tokens": PLACES[0]},
    ),
    (
        ValueError,
        r"values must have shape \(4, 3, 2\) like value_tokens, got \(4, 3, 6\)",
        {**VALUE, "values": LOGITS, "value_tokens": PLACES},
    ),
    (
        ValueError,
        r"value_tokens must be in \[0, 6\) .* got 6 in row 3",
        {
            **VALUE,
            "values": FEW,
            "value_tokens": PLACES.flatten().index_fill(0, torch.tensor(7), 6).view(4, 3, 2),
        },
    ),
]


@pytest.mark.parametrize(("kind", "message", "change"), MISUSE, ids=[m[1] for m in MISUSE])
def test_misuse_is_refused_by_name(
    kind: type[Exception], message: str, change: dict[str, Any]
) -> None:
    arguments = {"outputs": ("lse",), **change}
    with pytest.raises(kind, match=message):
        pgest.token_stats(LOGITS, None, **arguments)


def test_names_that_are_none_are_refused() -> None:
    wrong: tuple[Any, ...] = (("logp", ["entropy"]), ["logp", {}], ("logp", None))
    for outputs in wrong:
        with pytest.raises(ValueError, match=r"outputs must be names from \('logp', .*, got "):
            pgest.token_stats(LOGITS, LOGITS[..., 0].long(), outputs=outputs)
        with pytest.raises(ValueError, match=r"outputs must be names from \('logp', .*, got "):
            pgest.sample(LOGITS, outputs=outputs)


def test_the_reference_path_refuses_the_same_value_tokens() -> None:
    x = StatsInput(LOGITS, values=FEW, value_tokens=-PLACES)
    with pytest.raises(ValueError, match=r"value_tokens must be in \[0, 6\) .* got -1"):
        kernel._token_stats(*x, BITS["value"])


def test_grad_inplace_never_overwrites_what_it_reads_beside() -> None:
    leaf = torch.randn(4, 6, requires_grad=True)

    for outputs, name in ((("kl",), "reference_logits"), (("value",), "values")):
        logits = leaf * 1
        beside: dict[str, Any] = {name: logits.detach()[1:]}
        with pytest.raises(ValueError, match=f"grad_inplace=True would overwrite {name}"):
            pgest.token_stats(logits[:-1], None, grad_inplace=True, outputs=outputs, **beside)


def test_raw_ops_refuse_what_is_missing() -> None:
    for name in ("logp", "rank", "kl", "reverse_kl", "value"):
        with pytest.raises(RuntimeError, match="outputs ask for what the arguments do not give"):
            torch.ops.pgest.token_stats(*StatsInput(LOGITS), BITS[name])


def test_the_raw_op_refuses_what_it_cannot_read() -> None:
    ops, z, rows = torch.ops.pgest, torch.zeros(4, 6), torch.zeros(4)
    nothing: list[Any] = [None, None, 0.0, None, None, None]
    state = torch.zeros(8, 4, dtype=torch.float64)
    for given in range(6):
        grads: list[Any] = [None] * 6
        grads[given] = rows
        if given in (1, 2):  # of the row alone
            continue
        with pytest.raises(RuntimeError, match=r"pgest: gradients are given of what|wrong .*size"):
            ops.token_stats_backward(z, *nothing, None, None, None, state, *grads, False)
    grads = [None, rows, None, None, None, None]
    for size in (2, 4, 9):
        state = torch.zeros(size, 4, dtype=torch.float64)
        with pytest.raises(RuntimeError, match="pgest: state has the wrong size"):
            ops.token_stats_backward(z, *nothing, None, None, None, state, *grads, False)
    with pytest.raises(RuntimeError, match="pgest: reference_logits must have the shape"):
        ops.token_stats(z, *nothing, torch.zeros(6, 4), None, None, 1 << 3)
    with pytest.raises(RuntimeError, match="pgest: values must have the shape"):
        ops.token_stats(z, *nothing, None, torch.zeros(6, 4), None, 1 << 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_scales_that_are_no_normal_numbers_are_refused(dtype: torch.dtype) -> None:
    logits = torch.zeros(2, 6, dtype=dtype)
    logits[:, 0] = -math.inf
    temperatures = (1e-310, 1e308) if dtype == torch.float64 else (1e-40, 1e46)
    message = r"temperature must be from 1e-\d+ to 1e\+\d+ for float(32|64) statistics, got 1e"
    tensors = (torch.full((2,), t, dtype=torch.float64) for t in temperatures)
    for temperature in (*temperatures, *tensors):
        options: dict[str, Any] = {"temperature": temperature}
        with pytest.raises((ValueError, RuntimeError), match=message):
            pgest.token_stats(logits, None, outputs=("entropy",), **options)
        with pytest.raises((ValueError, RuntimeError), match=message):
            pgest.row_threshold(logits, top_p=0.5, **options)
        with pytest.raises((ValueError, RuntimeError), match=message):
            pgest.sample(logits, **options)
    for temperature in temperatures:
        given = torch.full((2,), temperature, dtype=torch.float64)
        with pytest.raises(ValueError, match=message):
            kernel.check_values(StatsInput(logits, None, temperature=given))
    least, most = (1e-308, 1e307) if dtype == torch.float64 else (1e-38, 1e38)
    for temperature in (least, most):
        stats = pgest.token_stats(logits, None, outputs=("entropy",), temperature=temperature)
        torch.testing.assert_close(
            there(stats.entropy).double(), torch.full((2,), 5.0).double().log()
        )
    for softcap in (1e-40, 1e39):
        with pytest.raises(ValueError, match=r"softcap must be from 1e-37 to 1e\+37, got 1e"):
            pgest.token_stats(logits, None, outputs=("entropy",), softcap=softcap)
