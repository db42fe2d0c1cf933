"""What benchmarks.cuda measures: each case with pgest and its peers, where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest
from pgest import objectives

Call = Callable[[], Any]
Made = Callable[[], Call]
Stats = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
CHECKED = 64  # rows that the errors are taken on
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass
class Case:
    """One piece of work. Candidates are made late: a missing peer is its own failure alone."""

    work: str
    shape: str
    dtype: str
    candidates: dict[str, Made]
    bytes: int = 0  # that must be read and written at least
    error: Callable[[Any], str] | None = None


def plain(of: Callable[..., Any], *args: Any) -> Made:
    return lambda: partial(of, *args)


def compiled(of: Callable[..., Any], *args: Any) -> Made:
    return lambda: partial(torch.compile(of, dynamic=False), *args)


def with_backward(of: Made) -> Made:
    """Of a call that closes over one leaf, its first argument: the gradient of all outputs."""

    def make() -> Call:
        call = of()
        assert isinstance(call, partial)
        leaf = call.args[0].detach().requires_grad_()

        def step() -> Any:
            outputs = call.func(leaf, *call.args[1:])
            return torch.autograd.grad(outputs, leaf, [torch.ones_like(o) for o in outputs])

        return step

    return make


def eager_stats(z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    wide = z if z.dtype == torch.float64 else z.float()
    logp = wide.log_softmax(-1)
    return logp.gather(-1, tokens[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def our_stats(z: Tensor, tokens: Tensor) -> Any:
    stats = pgest.token_stats(z, tokens, outputs=("logp", "entropy"))
    return stats.logp, stats.entropy


def trl_stats(z: Tensor, tokens: Tensor) -> Any:
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    return selective_log_softmax(z, tokens), entropy_from_logits(z)


def flash_logp(z: Tensor, tokens: Tensor) -> Any:
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss

    return (cross_entropy_loss(z, tokens)[0],)


def liger_logp(z: Tensor, tokens: Tensor) -> Any:
    from liger_kernel.transformers.functional import liger_cross_entropy

    return (liger_cross_entropy(z, tokens, reduction="none"),)


def stats_candidates(z: Tensor, tokens: Tensor) -> dict[str, Made]:
    return {
        "pgest": plain(our_stats, z, tokens),
        "eager": plain(eager_stats, z, tokens),
        "compiled": compiled(eager_stats, z, tokens),
        "TRL (logp, entropy)": plain(trl_stats, z, tokens),
        "flash-attn CE (logp)": plain(flash_logp, z, tokens),
        "Liger CE (logp)": plain(liger_logp, z, tokens),
    }


def largest_error(exact: tuple[Tensor, ...], found: Any) -> str:
    """Of what is returned, a loss or a log-probability, on the first rows."""
    pairs = zip(found, exact, strict=False)
    return f"{max(float((a[:CHECKED].abs() - b.abs()).abs().max()) for a, b in pairs):.1e}"


def stats_cases(device: str, n: int, v: int) -> Iterator[Case]:
    """logp and entropy of given logits: forward, and forward with backward."""
    for name, dtype in DTYPES.items():
        z = torch.randn(n, v, device=device).to(dtype)
        tokens = torch.randint(v, (n,), device=device)
        size, found = z.numel() * z.element_size(), stats_candidates(z, tokens)
        exact = eager_stats(z[:CHECKED].double(), tokens[:CHECKED])
        error = partial(largest_error, exact)
        yield Case("logp, entropy: forward", f"[{n}, {v}]", name, found, size, error)
        both = {who: with_backward(made) for who, made in found.items()}
        yield Case("logp, entropy: forward+backward", f"[{n}, {v}]", name, both, 3 * size)


def kl_cases(device: str, n: int, v: int) -> Iterator[Case]:
    """logp, entropy and exact KL to reference logits, forward and backward."""

    def eager(z: Tensor, q: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        logp, logq = z.float().log_softmax(-1), q.float().log_softmax(-1)
        p = logp.exp()
        return logp.gather(-1, t[:, None])[:, 0], -(p * logp).sum(-1), (p * (logp - logq)).sum(-1)

    def ours(z: Tensor, q: Tensor, t: Tensor) -> Any:
        s = pgest.token_stats(z, t, outputs=("logp", "entropy", "kl"), reference_logits=q)
        return s.logp, s.entropy, s.kl

    z, q = (torch.randn(n, v, device=device).to(torch.bfloat16) for _ in range(2))
    args = (z, q, torch.randint(v, (n,), device=device))
    found = {
        "pgest": with_backward(plain(ours, *args)),
        "eager": with_backward(plain(eager, *args)),
        "compiled": with_backward(compiled(eager, *args)),
    }
    size = z.numel() * z.element_size()
    yield Case("logp, entropy, KL: forward+backward", f"[{n}, {v}]", "bfloat16", found, 5 * size)


def step_cases(device: str, n: int, v: int) -> Iterator[Case]:
    """A loss of weights that are known before: its gradient in the forward, and after it."""
    z, q = (torch.randn(n, v, device=device).to(torch.bfloat16) for _ in range(2))
    tokens = torch.randint(v, (n,), device=device)
    leaf, advantage = z.requires_grad_(), torch.randn(n, device=device)
    size = z.numel() * z.element_size()
    for names, traffic in ((("logp", "entropy"), 2), (("logp", "entropy", "kl"), 3)):
        weights = {"logp": -advantage, "entropy": -0.01, "kl": 0.05}
        weights = {name: weights[name] for name in names}
        options = {"reference_logits": q} if "kl" in names else {}

        def ours(leaf: Tensor, weights: Any, options: Any) -> Any:
            loss = pgest.token_stats_sum(leaf, tokens, weights, **options)
            return torch.autograd.grad(loss, leaf)

        def apart(leaf: Tensor, weights: Any, options: Any) -> Any:
            stats = pgest.token_stats(leaf, tokens, outputs=tuple(weights), **options)
            terms = [(w * getattr(stats, name)).sum() for name, w in weights.items()]
            return torch.autograd.grad(torch.stack(terms).sum(), leaf)

        found = {
            "pgest": plain(ours, leaf, weights, options),
            "pgest, forward+backward": plain(apart, leaf, weights, options),
        }
        work = f"{', '.join(names)}: gradient in the forward"
        yield Case(work, f"[{n}, {v}]", "bfloat16", found, traffic * size)


def sample_cases(device: str, n: int, v: int) -> Iterator[Case]:
    """Draws with their log-probability, and relaxed samples."""

    def exponential(z: Tensor, s: int) -> Any:
        p = z.float().softmax(-1)
        return [(p / torch.empty_like(p).exponential_()).argmax(-1) for _ in range(s)]

    def multinomial(z: Tensor, s: int) -> Tensor:
        return torch.multinomial(z.float().softmax(-1), s, replacement=True)

    z = torch.randn(n, v, device=device).to(torch.bfloat16)
    size = z.numel() * z.element_size()
    for s in (1, 8):
        found = {
            "pgest": plain(pgest.sample, z, s),
            "multinomial": plain(multinomial, z, s),
            "exponential": plain(exponential, z, s),
            "exponential compiled": compiled(exponential, z, s),
        }
        yield Case(f"sample, S = {s}", f"[{n}, {v}]", "bfloat16", found, size)
    relaxed = {
        "pgest": plain(pgest.gumbel_softmax, z),
        "F.gumbel_softmax": plain(F.gumbel_softmax, z),
    }
    yield Case("gumbel_softmax", f"[{n}, {v}]", "bfloat16", relaxed, 2 * size)


def linear_cases(device: str, n: int, d: int, v: int) -> Iterator[Case]:
    """PPO-clip with entropy from hidden states, against the three products alone."""
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    hidden = (torch.randn(n, d, device=device) / d**0.5).to(dtype).requires_grad_()
    weight = torch.randn(v, d, device=device).to(dtype).requires_grad_()
    tokens = torch.randint(v, (n,), device=device)
    old, advantages = torch.full((n,), -11.0, device=device), torch.randn(n, device=device)

    def objective(stats: Any, old: Tensor, advantage: Tensor) -> Tensor:
        return objectives.ppo(stats, old, advantage) - 0.01 * stats.entropy

    def ours() -> Any:
        options: dict[str, Any] = {"outputs": ("logp", "entropy"), "normalizer": n}
        rows = (old, advantages)
        loss = pgest.linear_objective(hidden, weight, tokens, objective, *rows, **options)
        return torch.autograd.grad(loss, (hidden, weight))

    def products() -> Any:
        with torch.no_grad():
            for rows in hidden.split(4096):
                logits = rows @ weight.T
                _ = logits @ weight, logits.T @ rows

    def torch_own() -> Any:
        return torch.autograd.grad(F.linear_cross_entropy(hidden, weight, tokens), (hidden, weight))

    found = {
        "pgest": plain(ours),
        "three products": plain(products),
        "F.linear_cross_entropy": plain(torch_own),
    }
    shape, name = f"[{n}, {d}, {v}]", str(dtype).removeprefix("torch.")
    yield Case("linear_objective: PPO-clip, entropy", shape, name, found)


def small_cases(device: str, n: int, v: int) -> Iterator[Case]:
    """Small vocabularies, where the launch is what counts."""
    z = torch.randn(n, v, device=device)
    found = stats_candidates(z, torch.randint(v, (n,), device=device))
    few = {who: found[who] for who in ("pgest", "eager", "compiled")}
    yield Case("logp, entropy: forward", f"[{n}, {v}]", "float32", few, 4 * z.numel())


def bit_cases(device: str, s: int, b: int, d: int) -> Iterator[Case]:
    """Vectors of bits: drawn, and scored with a gradient."""

    def ours(z: Tensor, bits: Tensor) -> Any:
        return (pgest.bit_stats(z, bits).logp,)

    def eager(z: Tensor, bits: Tensor) -> Any:
        wide = z.expand(bits.shape)
        return (-F.binary_cross_entropy_with_logits(wide, bits, reduction="none").sum(-1),)

    z = torch.randn(b, d, device=device)
    bits = (torch.rand(s, b, d, device=device) < z.sigmoid()).float()
    shape, size = f"[{s}, {b}, {d}]", 4 * bits.numel()
    drawn = {
        "pgest": plain(pgest.sample_bits, z, s),
        "eager": lambda: lambda: (torch.rand(s, b, d, device=device) < z.sigmoid()).float(),
    }
    yield Case("bits: draw", shape, "float32", drawn, size)
    scored = {
        "pgest": with_backward(plain(ours, z, bits)),
        "eager": with_backward(plain(eager, z, bits)),
        "compiled": with_backward(compiled(eager, z, bits)),
    }
    yield Case("bits: score, forward+backward", shape, "float32", scored, 2 * size)


def cases(device: str, quick: bool) -> Iterator[Case]:
    """All of them, the most important first."""
    n, v = (64, 1000) if quick else (8192, 128_256)
    yield from stats_cases(device, n, v)
    yield from kl_cases(device, n, v)
    yield from step_cases(device, n, v)
    yield from sample_cases(device, n, v)
    yield from linear_cases(device, n, 16 if quick else 4096, v)
    small = [(64, 10)] if quick else [(1_000_000, 2), (1_000_000, 10), (100_000, 1000), (64, 10)]
    for n, v in small:
        yield from small_cases(device, n, v)
    yield from bit_cases(device, 4 if quick else 64, 1000, 20 if quick else 1000)
