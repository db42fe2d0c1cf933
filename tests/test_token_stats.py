"""What only `token_stats` promises: outputs, samples, masks, memory, temperature, errors."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pgest
from pgest import reference
from pgest.ops.stats import kernel
from pgest.reference import StatsInput


def example(samples: int | None = None, vocab: int = 6, **options: Any) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 3, vocab, generator=generator, **options)
    shape = (4, 3) if samples is None else (samples, 4, 3)
    return logits, torch.randint(vocab, shape, generator=generator)


class Recorder(TorchDispatchMode):
    """The largest tensor that any operation under it returns, and how often ops ran."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        for out in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(out, Tensor):
                self.largest = max(self.largest, out.numel())
        return result


@pytest.mark.parametrize("names", [("logp",), ("entropy",), ("lse",), ("lse", "logp")])
def test_only_what_is_asked_is_returned(names: tuple[str, ...]) -> None:
    logits, tokens = example()
    stats = pgest.token_stats(logits, tokens, outputs=names)
    every = pgest.token_stats(logits, tokens)
    for name in ("logp", "entropy", "lse"):
        if name in names:
            assert torch.equal(getattr(stats, name), getattr(every, name))
        else:
            assert getattr(stats, name) is None


def test_tokens_are_only_needed_for_logp() -> None:
    logits, _ = example()
    stats = pgest.token_stats(logits, None, outputs=("entropy", "lse"))
    assert stats.logp is None
    torch.testing.assert_close(stats.lse, logits.logsumexp(-1))


def test_samples_cost_one_pass_and_no_memory() -> None:
    logits, tokens = example(samples=64, vocab=500, requires_grad=True)
    with Recorder() as recorder:
        stats = pgest.token_stats(logits, tokens)
        assert stats.logp is not None
        stats.logp.sum().backward()
    assert recorder.largest == logits.numel()
    assert sum("token_stats_backward" in name for name in recorder.names) == 1
    assert sum("token_stats." in name for name in recorder.names) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_duplicate_samples_add_up_before_rounding(dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 4, dtype=dtype, requires_grad=True)
    tokens = torch.full((300, 1), 2)
    weight = torch.full((300, 1), 1e-3)
    (weight * pgest.token_logp(logits, tokens)).sum().backward()
    assert logits.grad is not None
    expected = 0.3 * torch.tensor([[-0.25, -0.25, 0.75, -0.25]])
    torch.testing.assert_close(logits.grad, expected.to(dtype), rtol=1e-5, atol=0)


def test_the_chosen_gradient_keeps_its_digits_when_p_is_near_one() -> None:
    logits = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)
    pgest.token_logp(logits, torch.tensor([0])).sum().backward()
    exact = logits.detach().double().requires_grad_()
    exact.log_softmax(-1)[0, 0].backward()
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad, exact.grad.float(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("samples", [None, 2])
def test_masked_rows_are_not_read(samples: int | None) -> None:
    logits, tokens = example(samples)
    mask = torch.tensor([[True, False, True]] * 4)
    bad = torch.where(mask[..., None], logits, math.nan).requires_grad_()
    ignored = torch.where(mask, tokens, -100)
    temperature = torch.where(mask, 0.7, -1.0)
    stats = pgest.token_stats(bad, ignored, mask=mask, temperature=temperature)
    good = pgest.token_stats(logits, tokens, temperature=0.7)
    for out, expected in zip(stats[:3], good[:3], strict=True):
        assert out is not None
        assert expected is not None
        torch.testing.assert_close(out, torch.where(mask, expected, 0.0))
    torch.stack([out.sum() for out in stats if out is not None]).sum().backward()
    assert bad.grad is not None
    assert bad.grad.isfinite().all()
    assert (bad.grad[~mask] == 0).all()


def test_a_row_that_the_loss_masks_afterwards_does_not_poison_the_gradient() -> None:
    logits, tokens = example(requires_grad=True)
    dead = torch.zeros(4, 3, dtype=torch.bool)
    dead[1, 1] = True
    stats = pgest.token_stats(torch.where(dead[..., None], -math.inf, logits), tokens)
    assert stats.logp is not None
    torch.where(dead, 0.0, stats.logp).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("form", ["number", "scalar", "rows", "column", "float64"])
def test_temperature_in_every_form(form: str) -> None:
    logits, tokens = example()
    rows = torch.linspace(0.5, 2, 12).view(4, 3)
    value: Any = {
        "number": 0.7,
        "scalar": torch.tensor(0.7),
        "rows": rows,
        "column": rows[:, :1],
        "float64": rows.double(),
    }[form]
    wide = value if isinstance(value, Tensor) else torch.tensor(value)
    expected = reference.token_stats(reference.StatsInput(logits, tokens, temperature=wide))
    stats = pgest.token_stats(logits, tokens, temperature=value)
    torch.testing.assert_close(tuple(stats)[:3], tuple(expected)[:3])


def test_temperature_learns_in_its_own_shape_and_dtype() -> None:
    logits, tokens = example()
    for temperature in (torch.tensor(0.7), torch.full((4, 1), 0.7), torch.full((4, 3), 0.7)):
        temperature = temperature.requires_grad_()
        pgest.token_logp(logits, tokens, temperature=temperature).sum().backward()
        plain = temperature.detach().clone().requires_grad_()
        (logits / plain.expand(4, 3)[..., None]).log_softmax(-1).gather(
            -1, tokens[..., None]
        ).sum().backward()
        assert temperature.grad is not None
        torch.testing.assert_close(temperature.grad, plain.grad)


LOGITS, TOKENS = example()
MISUSE: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "logits must be a tensor, got list", {"logits": [[0.0]]}),
    (TypeError, "logits must be float32, .* got torch.int64", {"logits": LOGITS.long()}),
    (
        ValueError,
        r"logits must have shape \[\.\.\., V\] .* got \(\)",
        {"logits": torch.tensor(0.0)},
    ),
    (ValueError, r"V >= 1, got \(4, 3, 0\)", {"logits": LOGITS[..., :0]}),
    (ValueError, r'tokens must be a tensor when outputs ask for "logp"', {"tokens": None}),
    (TypeError, "tokens must be an integer tensor, got list", {"tokens": [1]}),
    (TypeError, "tokens must be int64, .* got torch.float32", {"tokens": TOKENS.float()}),
    (TypeError, "tokens must be int64, .* got torch.bool", {"tokens": TOKENS > 1}),
    (
        ValueError,
        r"tokens must have shape \(4, 3\) .* \(S, 4, 3\) for S samples, got \(3, 4\)",
        {"tokens": TOKENS.T},
    ),
    (
        ValueError,
        r"tokens must be in \[0, 6\) .* got 6 in row 5",
        {"tokens": TOKENS.flatten().index_fill(0, torch.tensor(5), 6).view(4, 3)},
    ),
    (ValueError, r"outputs must be names from .* got 'prob'", {"outputs": ("prob",)}),
    (ValueError, r"outputs must be a sequence of names .* got 'logp'", {"outputs": "logp"}),
    (ValueError, r"outputs must be a sequence of names .* got \(\)", {"outputs": ()}),
    (ValueError, "outputs must be a sequence of names .* got None", {"outputs": None}),
    (TypeError, "mask must be a bool tensor .* got torch.float32", {"mask": TOKENS.float()}),
    (ValueError, r"mask must have shape \(4, 3\) .* got \(3,\)", {"mask": torch.ones(3).bool()}),
    (TypeError, "temperature must be a number or a tensor, got str", {"temperature": "hot"}),
    (TypeError, "temperature must be a floating-point tensor", {"temperature": torch.tensor(1)}),
    (ValueError, "temperature must be positive and finite, got 0", {"temperature": 0}),
    (ValueError, "temperature must be positive and finite, got nan", {"temperature": math.nan}),
    (
        ValueError,
        r"temperature must be .* broadcastable to \(4, 3\) .* got shape \(2,\)",
        {"temperature": torch.ones(2)},
    ),
    (
        ValueError,
        r"temperature must be positive and finite, got -1\.0+ in row 7",
        {"temperature": torch.ones(12).index_fill(0, torch.tensor(7), -1.0).view(4, 3)},
    ),
]


@pytest.mark.parametrize(("kind", "message", "change"), MISUSE, ids=[m[1] for m in MISUSE])
def test_misuse_is_refused_by_name(
    kind: type[Exception], message: str, change: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"logits": LOGITS, "tokens": TOKENS, **change}
    logits, tokens = arguments.pop("logits"), arguments.pop("tokens")
    with pytest.raises(kind, match=message) as error:
        pgest.token_stats(logits, tokens, **arguments)
    assert not re.search(r"\.cpp|\.h:", str(error.value)), "source paths are for developers"


@pytest.mark.parametrize("change", ["tokens", "temperature"])
def test_the_reference_path_refuses_the_same_values(change: str) -> None:
    tokens, temperature = TOKENS.clone(), torch.ones(4, 3, dtype=torch.float64)
    (tokens if change == "tokens" else temperature)[2, 1] = -7
    with pytest.raises(ValueError, match=rf"{change} must be .* got -7"):
        kernel._token_stats(*StatsInput(LOGITS, tokens, temperature=temperature), 7)


def test_tokens_that_changed_since_the_forward_are_refused() -> None:
    logits, tokens = example(requires_grad=True)
    buffer = tokens.numpy()
    logp = pgest.token_logp(logits, tokens).sum()
    buffer[:] = -(10**10)  # numpy's writes do not count for autograd
    with pytest.raises(ValueError, match=r"tokens must be in \[0, 6\)"):
        logp.backward()


def test_the_first_bad_token_is_named_whatever_the_threads() -> None:
    logits = torch.zeros(4000, 50)
    tokens = torch.zeros(2, 4000, dtype=torch.long)
    tokens[1, 3000:] = -1
    with pytest.raises(ValueError, match=r"got -1 in row 3000, sample 1"):
        pgest.token_logp(logits, tokens)


def test_integer_types_of_tokens() -> None:
    logits, tokens = example()
    expected = pgest.token_logp(logits, tokens)
    for dtype in (torch.int32, torch.int16, torch.uint8, torch.int8):
        assert torch.equal(pgest.token_logp(logits, tokens.to(dtype)), expected)


def test_a_view_is_read_in_place() -> None:
    """800 MB of rows that share 4 kB of memory: a copy would show in the process's peak."""
    script = (
        "import resource, torch, pgest\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "row = torch.zeros(1, 1000)\n"
        "pgest.token_stats(row, None, outputs=('lse',))\n"
        "before = peak()\n"
        "for view in (row.expand(200_000, 1000), row.expand(400, 500, 1000)[:, 1:]):\n"
        "    pgest.token_stats(view, None, outputs=('entropy',))\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 200
