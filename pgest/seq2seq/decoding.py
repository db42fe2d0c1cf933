"""Drawing sequences token by token from any model that offers a step function."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""What a decoder carries between tokens; dimension 0 of every tensor is the row."""

Step = Callable[[Tensor, State], tuple[Tensor, State]]
"""`step(tokens [N], state) -> (logits [N, V] of the next token, state)`."""


class Sequences(NamedTuple):
    """Decoded sequences of `B` rows, detached: `T` is the length of the longest.

    `tokens [S, B, T]` include the closing `eos` and hold `eos` beyond it; `mask [S, B, T]` is True
    up to and including that first `eos` (everywhere, for a sequence cut at the maximum length);
    `logp [S, B, T]` is float32, 0 where masked.
    """

    tokens: Tensor
    mask: Tensor
    logp: Tensor


@torch.no_grad()
def sample(
    step: Step,
    state: State,
    num_samples: int = 1,
    *,
    bos: int,
    eos: int,
    max_length: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Sequences:
    """Draw `num_samples` independent sequences for each row of `state`.

    Samples of a row that have drawn the same tokens so far are in the same state, so each distinct
    prefix is computed once, however many samples share it; finished sequences cost nothing.

    Args:
        step: the model; called once per position, on a changing number of rows.
        state: the decoder's first state, B rows.
        num_samples: S, at least 1.
        bos: the token that opens every sequence; it is not part of the result.
        eos: the token that closes a sequence; it is part of the result and of `logp`.
        max_length: the most tokens of a sequence, `eos` included.
        temperature: what the logits are divided by, above 0; `logp` is that of the tempered policy.
        generator: the source of all randomness, on the state's device.

    Returns:
        The sequences, `[S, B, T]`.

    Raises:
        ValueError: for `num_samples` or `max_length` below 1, or a temperature not above 0.

    Example:
        >>> coin = lambda tokens, state: (torch.zeros(len(tokens), 2), state)
        >>> draw = sample(coin, (torch.zeros(3, 1),), 4, bos=0, eos=1, max_length=5)
        >>> draw.tokens.shape[:2]
        torch.Size([4, 3])
    """

    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")

    def tempered(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = step(tokens, state)
        return logits.float() / temperature, state

    def choose(logp: Tensor, row: Tensor) -> Tensor:
        # Inverse transform in float64: a token of probability 0 is never the first above u.
        cumulative = logp.double().exp().cumsum(-1)
        u = torch.rand(row.shape, generator=generator, device=row.device, dtype=torch.float64)
        below = cumulative[row] <= (u * cumulative[row, -1]).unsqueeze(-1)
        return below.sum(-1).clamp(max=logp.shape[-1] - 1)

    walk = step if temperature == 1 else tempered
    return _decode(walk, state, num_samples, choose, bos, eos, max_length)


@torch.no_grad()
def greedy(step: Step, state: State, *, bos: int, eos: int, max_length: int) -> Sequences:
    """Take the most likely token at every position (the lowest id among equals).

    Arguments, result (`S = 1`) and errors are those of `sample`.

    Example:
        >>> stop = lambda tokens, state: (torch.tensor([[0.0, 1.0]]).repeat(len(tokens), 1), state)
        >>> greedy(stop, (torch.zeros(1, 1),), bos=0, eos=1, max_length=5).tokens
        tensor([[[1]]])
    """

    def choose(logp: Tensor, row: Tensor) -> Tensor:
        return logp.argmax(-1)[row]

    return _decode(step, state, 1, choose, bos, eos, max_length)


def _decode(
    step: Step,
    state: State,
    num_samples: int,
    choose: Callable[[Tensor, Tensor], Tensor],
    bos: int,
    eos: int,
    max_length: int,
) -> Sequences:
    """Run the loop over positions; `choose(logp [N, V], row [M])` gives a token for each `row`."""
    for name, value in (("num_samples", num_samples), ("max_length", max_length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    batch, device = state[0].shape[0], state[0].device
    total = num_samples * batch
    tokens = torch.full((max_length, total), eos, device=device)
    mask = torch.zeros((max_length, total), dtype=torch.bool, device=device)
    logps = torch.zeros((max_length, total), device=device)
    live = torch.arange(total, device=device)  # the samples that have not ended
    row = live % batch  # the row of `state`, a distinct prefix, in which each of them is
    last = torch.full((batch,), bos, device=device)
    length = 0
    while live.numel() and length < max_length:
        logits, state = step(last, state)
        logp = logits.float().log_softmax(-1)
        if logp.isnan().any():
            raise ValueError(
                "step must give every row at least one possible token, got a row of -inf, or one "
                f"with NaN or inf, at position {length}"
            )
        chosen = choose(logp, row)
        tokens[length, live] = chosen
        mask[length, live] = True
        logps[length, live] = logp[row, chosen]
        length += 1
        running = chosen != eos
        live = live[running]
        vocabulary = logits.shape[-1]
        prefix, row = torch.unique(row[running] * vocabulary + chosen[running], return_inverse=True)
        parent, last = prefix // vocabulary, prefix % vocabulary
        state = tuple(part.index_select(0, parent) for part in state)
    shape = (length, num_samples, batch)
    return Sequences(
        *(part[:length].view(shape).permute(1, 2, 0) for part in (tokens, mask, logps))
    )
