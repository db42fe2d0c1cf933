"""What benchmarks.cuda measures: each case with pgest and its peers, where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import pgest
from pgest import objectives

Call = Callable[[], Any]
CHECKED = 64  # rows that the errors are taken on
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass
class Case:
    """One piece of work. A candidate is made late, so that a missing peer is only its own failure."""

    work: str
    shape: str
    dtype: str
    candidates: dict[str, Callable[[], Call]]
    bytes: int = 0  # that must be read and written at least
    error: Callable[[Any], str] | None = field(default=None)


def eager_stats(z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    logp = z.float().log_softmax(-1)
    return logp.gather(-1, tokens[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def selected(z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    return selective_log_softmax(z, tokens), entropy_from_logits(z)


def flash(z: Tensor, tokens: Tensor) -> tuple[Tensor]:
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss

    return (cross_entropy_loss(z, tokens)[0],)


def liger(z: Tensor, tokens: Tensor) -> tuple[Tensor]:
    from liger_kernel.transformers.functional import liger_cross_entropy

    return (liger_cross_entropy(z, tokens, reduction="none"),)


def ours(z: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    stats = pgest.token_stats(z, tokens, outputs=("logp", "entropy"))
    return stats.logp, stats.entropy


Stats = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
STATS: dict[str, Stats] = {
    "pgest": ours,
    "eager": eager_stats,
    "compiled": eager_stats,
    "TRL (logp, entropy)": selected,
    "flash-attn CE (logp)": flash,
    "Liger CE (logp)": liger,
}


def _made(name: str, of: Stats) -> Stats:
    if name != "compiled":
        return of
    torch._dynamo.reset()
    return torch.compile(of, dynamic=False)


def stats_cases(device: str, sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """logp and entropy of given logits: forward, and forward with backward."""
    for n, v in sizes:
        for dtype in DTYPES:
            z = torch.randn(n, v, device=device).to(DTYPES[dtype])
            tokens = torch.randint(v, (n,), device=device)
            size = z.numel() * z.element_size()
            exact = eager_stats_float64(z[:CHECKED], tokens[:CHECKED])

            def error(found: Any, exact: tuple[Tensor, ...] = exact) -> str:
                pairs = zip(found, exact, strict=False)
                return f"{max(float((a[:CHECKED].abs() - b.abs()).abs().max()) for a, b in pairs):.1e}"

            def forward(of: Stats, name: str, z: Tensor = z, t: Tensor = tokens) -> Call:
                call = _made(name, of)
                return lambda: call(z, t)

            def both(of: Stats, name: str, z: Tensor = z, t: Tensor = tokens) -> Call:
                call, leaf = _made(name, of), z.detach().requires_grad_()

                def step() -> Any:
                    outputs = call(leaf, t)
                    grads = [torch.ones_like(o) for o in outputs]
                    return torch.autograd.grad(outputs, leaf, grads)

                return step

            for work, made, passes in (("forward", forward, 1), ("forward+backward", both, 3)):
                yield Case(
                    f"logp, entropy: {work}",
                    f"[{n}, {v}]",
                    dtype,
                    {k: (lambda k=k, of=of, m=made: m(of, k)) for k, of in STATS.items()},
                    passes * size,
                    error if work == "forward" else None,
                )


def eager_stats_float64(z: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    logp = z.double().log_softmax(-1)
    return logp.gather(-1, tokens[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def kl_cases(device: str, sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """logp, entropy and exact KL to reference logits, forward and backward."""

    def eager(z: Tensor, q: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        logp, logq = z.float().log_softmax(-1), q.float().log_softmax(-1)
        p = logp.exp()
        return logp.gather(-1, t[:, None])[:, 0], -(p * logp).sum(-1), (p * (logp - logq)).sum(-1)

    def mine(z: Tensor, q: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        s = pgest.token_stats(z, t, outputs=("logp", "entropy", "kl"), reference_logits=q)
        return s.logp, s.entropy, s.kl

    for n, v in sizes:
        z, q = (torch.randn(n, v, device=device).to(torch.bfloat16) for _ in range(2))
        tokens = torch.randint(v, (n,), device=device)

        def step(of: Callable[..., Any], z: Tensor = z, q: Tensor = q, t: Tensor = tokens) -> Call:
            leaf = z.detach().requires_grad_()

            def call() -> Any:
                outputs = of(leaf, q, t)
                return torch.autograd.grad(outputs, leaf, [torch.ones_like(o) for o in outputs])

            return call

        yield Case(
            "logp, entropy, KL: forward+backward",
            f"[{n}, {v}]",
            "bfloat16",
            {
                "pgest": lambda step=step: step(mine),
                "eager": lambda step=step: step(eager),
                "compiled": lambda step=step: step(torch.compile(eager, dynamic=False)),
            },
            5 * z.numel() * z.element_size(),
        )


def sample_cases(device: str, sizes: list[tuple[int, int]]) -> Iterator[Case]:
    def exponential(z: Tensor, s: int) -> Any:
        p = z.float().softmax(-1)
        return [(p / torch.empty_like(p).exponential_()).argmax(-1) for _ in range(s)]

    for n, v in sizes:
        z = torch.randn(n, v, device=device).to(torch.bfloat16)
        for s in (1, 8):
            yield Case(
                f"sample, S = {s}",
                f"[{n}, {v}]",
                "bfloat16",
                {
                    "pgest": lambda z=z, s=s: lambda: pgest.sample(z, s),
                    "multinomial": lambda z=z, s=s: (
                        lambda: torch.multinomial(z.float().softmax(-1), s, replacement=True)
                    ),
                    "exponential": lambda z=z, s=s: lambda: exponential(z, s),
                    "exponential compiled": lambda z=z, s=s: (
                        lambda f=torch.compile(exponential, dynamic=False): f(z, s)
                    ),
                },
                z.numel() * z.element_size(),
            )
        yield Case(
            "gumbel_softmax",
            f"[{n}, {v}]",
            "bfloat16",
            {
                "pgest": lambda z=z: lambda: pgest.gumbel_softmax(z),
                "F.gumbel_softmax": lambda z=z: lambda: F.gumbel_softmax(z),
            },
            2 * z.numel() * z.element_size(),
        )


def linear_cases(device: str, shape: tuple[int, int, int]) -> Iterator[Case]:
    """PPO-clip with entropy from hidden states, against the three products alone."""
    n, d, v = shape
    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    hidden = (torch.randn(n, d, device=device) / d**0.5).to(dtype)
    weight = torch.randn(v, d, device=device).to(dtype)
    tokens = torch.randint(v, (n,), device=device)
    old, advantages = torch.full((n,), -11.0, device=device), torch.randn(n, device=device)

    def objective(stats: Any, old: Tensor, advantage: Tensor) -> Tensor:
        return objectives.ppo(stats, old, advantage) - 0.01 * stats.entropy

    def ours() -> Any:
        h, w = hidden.requires_grad_(), weight.requires_grad_()
        loss = pgest.linear_objective(
            h, w, tokens, objective, old, advantages, outputs=("logp", "entropy"), normalizer=n
        )
        return torch.autograd.grad(loss, (h, w))

    def products() -> Any:
        with torch.no_grad():
            for rows in hidden.split(4096):
                logits = rows @ weight.T
                _ = logits @ weight, logits.T @ rows

    def torch_own() -> Any:
        h, w = hidden.requires_grad_(), weight.requires_grad_()
        loss = F.linear_cross_entropy(h, w, tokens)
        return torch.autograd.grad(loss, (h, w))

    yield Case(
        "linear_objective: PPO-clip, entropy",
        f"[{n}, {d}, {v}]",
        str(dtype).removeprefix("torch."),
        {
            "pgest": lambda: ours,
            "three products": lambda: products,
            "F.linear_cross_entropy": lambda: torch_own,
        },
    )


def small_cases(device: str, sizes: list[tuple[int, int]]) -> Iterator[Case]:
    """Small vocabularies and vectors of bits."""
    for n, v in sizes:
        z = torch.randn(n, v, device=device)
        tokens = torch.randint(v, (n,), device=device)
        yield Case(
            "logp, entropy: forward",
            f"[{n}, {v}]",
            "float32",
            {k: (lambda k=k, z=z, t=tokens: lambda f=_made(k, STATS[k]): f(z, t)) for k in SMALL},
            4 * z.numel(),
        )


SMALL = ("pgest", "eager", "compiled")


def cases(device: str, quick: bool) -> Iterator[Case]:
    large = [(64, 1000)] if quick else [(8192, 128_256)]
    small = [(64, 10)] if quick else [(1_000_000, 2), (1_000_000, 10), (100_000, 1000), (64, 10)]
    yield from stats_cases(device, large)
    yield from kl_cases(device, large)
    yield from sample_cases(device, large)
    yield from linear_cases(device, (64, 16, 100) if quick else (8192, 4096, 128_256))
    yield from small_cases(device, small)
