"""Argument checks in one place and one style: the name, what came, what was expected.

Shapes and dtypes only: values are checked inside the kernel, without a synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgest.ops import scalars
from pgest.reference import statistics_dtype

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
# Temperatures for which log2(e) / T is a normal number of the dtype, as in the kernels.
_TEMPERATURES = {torch.float32: (1e-38, 1e38), torch.float64: (1e-308, 1e307)}


class Words(NamedTuple):
    """What the user calls the tensor that holds the rows, and what has the vocabulary's size."""

    rows: str
    vocabulary: str


LOGITS = Words("logits", "the last dimension of logits")
HEAD = Words("hidden", "the first dimension of weight")


def tensor(name: str, x: Any) -> None:
    """Any tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")


def boolean(x: Any) -> None:
    """A mask's type, whatever its shape."""
    if not isinstance(x, Tensor) or x.dtype != torch.bool:
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"mask must be a bool tensor (True counts), got {came}")


def logits(x: Any) -> None:
    """A floating-point tensor [..., V] with V >= 1."""
    tensor("logits", x)
    if x.dtype not in _FLOATS:
        raise TypeError(f"logits must be float32, float64, bfloat16 or float16, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"logits must have shape [..., V] with V >= 1, got {_shape(x)}")


def tokens(
    x: Any, logits: Tensor, needed: bool, name: str = "tokens", of: Words = LOGITS
) -> Tensor | None:
    """Integers [...] or [S, ...] on the logits' device, as int64, or None."""
    if x is None:
        if needed:
            raise ValueError(
                f'{name} must be a tensor when outputs ask for "logp" or "rank", got None'
            )
        return None
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be an integer tensor, got {type(x).__name__}")
    if x.dtype not in _INTEGERS:
        raise TypeError(f"{name} must be int64, int32, int16, int8 or uint8, got {x.dtype}")
    batch = logits.shape[:-1]
    if x.shape != batch and (x.dim() != logits.dim() or x.shape[1:] != batch):
        raise ValueError(
            f"{name} must have shape {_shape(batch)} like {of.rows}[..., 0], or "
            f"{_samples(batch)} for S samples, got {_shape(x)}"
        )
    _same_device(name, x, logits, of)
    return x if x.dtype == torch.int64 else x.to(torch.int64)


def outputs(x: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """A non-empty sequence of known names, as a tuple."""
    if isinstance(x, str) or not isinstance(x, Iterable):
        raise ValueError(f"outputs must be a sequence of names from {known}, got {x!r}")
    names = tuple(x)
    if not names:
        raise ValueError(f"outputs must be a sequence of names from {known}, got {x!r}")
    for name in names:
        if name not in known:
            raise ValueError(f"outputs must be names from {known}, got {name!r}")
    return names


def mask(x: Any, logits: Tensor, of: Words = LOGITS) -> Tensor | None:
    """Bool [...], one entry a row."""
    if x is None:
        return None
    boolean(x)
    if x.shape != logits.shape[:-1]:
        raise ValueError(
            f"mask must have shape {_shape(logits.shape[:-1])} like {of.rows}[..., 0], "
            f"got {_shape(x)}"
        )
    _same_device("mask", x, logits, of)
    return x


def threshold(x: Any, logits: Tensor, of: Words = LOGITS) -> Tensor | None:
    """A number or a tensor without a gradient, as float64 expanded to one entry a row."""
    if x is None:
        return None
    if not isinstance(x, Tensor):
        value = scalars.number("threshold", x, or_tensor=True)
        x = torch.full((), value, dtype=torch.float64, device=logits.device)
    _constant("threshold", x)
    return _of_rows("threshold", x, logits, of)


def reference_logits(x: Any, logits: Tensor) -> Tensor:
    """The reference policy's logits, like the policy's, without a gradient."""
    if x is None:
        raise ValueError('reference_logits must be given when outputs ask for "kl" or "reverse_kl"')
    tensor("reference_logits", x)
    if x.dtype != logits.dtype:
        raise TypeError(f"reference_logits must be {logits.dtype} like logits, got {x.dtype}")
    if x.shape != logits.shape:
        raise ValueError(
            f"reference_logits must have shape {_shape(logits)} like logits, got {_shape(x)}"
        )
    _constant("reference_logits", x)
    _same_device("reference_logits", x, logits)
    return x


def values(x: Any, tokens: Any, logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rewards without a gradient: [..., V], or [..., K] of the K value_tokens of each row."""
    if x is None:
        raise ValueError('values must be given when outputs ask for "value"')
    tensor("values", x)
    statistics = statistics_dtype(logits)
    if x.dtype not in (logits.dtype, statistics):
        kinds = " or ".join(dict.fromkeys(str(d) for d in (logits.dtype, statistics)))
        raise TypeError(f"values must be {kinds}, got {x.dtype}")
    _constant("values", x)
    _same_device("values", x, logits)
    if tokens is None:
        if x.shape != logits.shape:
            raise ValueError(
                f"values must have shape {_shape(logits)} like logits, or come with value_tokens, "
                f"got {_shape(x)}"
            )
        return x, None
    tensor("value_tokens", tokens)
    if tokens.dtype not in _INTEGERS:
        raise TypeError(f"value_tokens must be integers, got {tokens.dtype}")
    if tokens.shape[:-1] != logits.shape[:-1] or tokens.dim() != logits.dim():
        raise ValueError(
            f"value_tokens must have shape {_columns(logits.shape[:-1])}, got {_shape(tokens)}"
        )
    if x.shape != tokens.shape:
        raise ValueError(
            f"values must have shape {_shape(tokens)} like value_tokens, got {_shape(x)}"
        )
    _same_device("value_tokens", tokens, logits)
    return x.to(statistics), tokens.to(torch.int64)


def temperature(
    x: Any, logits: Tensor, name: str = "temperature", of: Words = LOGITS
) -> Tensor | None:
    """None for the number 1, else float64 expanded to one entry a row."""
    if type(x) is float and x == 1:  # first: tiny inputs feel what follows
        return None
    if isinstance(x, Tensor):
        return _of_rows(name, x, logits, of)
    value = scalars.number(name, x, or_tensor=True)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {x}")
    dtype = statistics_dtype(logits)
    least, most = _TEMPERATURES[dtype]
    if not least <= value <= most:
        raise ValueError(f"{name} must be {_range(dtype)}, got {x}")
    if value == 1:
        return None
    full = torch.full((), value, dtype=torch.float64, device=logits.device)
    return full.expand(logits.shape[:-1])


def _of_rows(name: str, x: Tensor, logits: Tensor, of: Words) -> Tensor:
    """A tensor as float64 expanded to one entry a row."""
    if not x.dtype.is_floating_point:
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")
    _same_device(name, x, logits, of)
    batch = logits.shape[:-1]
    try:
        return x.to(torch.float64).expand(batch)
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or broadcastable to {_shape(batch)} like "
            f"{of.rows}[..., 0], got shape {_shape(x)}"
        ) from None


def temperature_values(
    temperature: Tensor | None,
    logits: Tensor,
    mask: Tensor | None = None,
    name: str = "temperature",
) -> None:
    """What the CPU kernels refuse; elsewhere a check would synchronise."""
    if temperature is None or logits.device.type != "cpu":
        return
    dtype = statistics_dtype(logits)
    least, most = _TEMPERATURES[dtype]
    bad = ~((temperature >= least) & (temperature <= most))
    if mask is not None:
        bad = bad & mask
    if bad.any():
        row = int(bad.flatten().nonzero()[0])
        value = temperature.flatten()[row].item()
        fair = 0 < value < float("inf")
        wanted = _range(dtype) if fair else "positive and finite"
        raise ValueError(f"{name} must be {wanted}, got {value} in row {row}")


def _range(dtype: torch.dtype) -> str:
    least, most = _TEMPERATURES[dtype]
    return f"from {least} to {most} for {str(dtype).removeprefix('torch.')} statistics"


def bias(x: Any, logits: Tensor, name: str = "bias", of: Words = LOGITS) -> Tensor | None:
    """Floating point [V], in the dtype of the statistics."""
    if x is None:
        return None
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {came}")
    if x.shape != logits.shape[-1:]:
        raise ValueError(
            f"{name} must have shape {_shape(logits.shape[-1:])} like {of.vocabulary}, "
            f"got {_shape(x)}"
        )
    _same_device(name, x, logits, of)
    return x.to(statistics_dtype(logits))


def _same_device(name: str, x: Tensor, logits: Tensor, of: Words = LOGITS) -> None:
    if x.device != logits.device:
        raise ValueError(f"{name} must be on {logits.device} like {of.rows}, got {x.device}")


def _shape(x: Tensor | torch.Size) -> str:
    return str(tuple(x.shape if isinstance(x, Tensor) else x))


def _constant(name: str, x: Tensor) -> None:
    if x.requires_grad:
        raise ValueError(f"{name} must not require a gradient: none is given; detach it")


def _samples(batch: torch.Size) -> str:
    return "(" + ", ".join(["S", *map(str, batch)]) + ")"


def _columns(batch: torch.Size) -> str:
    return "(" + ", ".join([*map(str, batch), "K"]) + ")"
